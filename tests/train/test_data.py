import numpy as np
import pytest

from mvit import dataset
from mvit.check import parse
from mvit.config import AugmentConfig, CropConfig
from tests.conftest import raw_config
from tests.test_dataset import make_folder

pytestmark = pytest.mark.mindspore


def sources(*overrides):
    from mvit.train.data.source import open_sources

    config = parse(raw_config(*overrides))
    return config, *open_sources(config.data, dataset.look(config.data))


def test_digits_are_split_in_proportion_and_without_overlap():
    _, train, val = sources()
    assert (len(train.labels), len(val.labels)) == (dataset.DIGITS_TRAIN, dataset.DIGITS_VAL)
    share = np.bincount(val.labels) / np.bincount(np.concatenate([train.labels, val.labels]))
    assert np.abs(share - 0.2).max() < 0.01
    pictures = {train.image(i).tobytes() for i in range(len(train.labels))}
    assert not any(val.image(i).tobytes() in pictures for i in range(len(val.labels)))
    assert train.image(0).shape == (64, 64, 3)


def test_the_configured_mean_and_std_of_digits_are_those_of_the_data():
    config, train, _ = sources()
    pixels = np.stack([train.image(i) for i in range(len(train.labels))]) / 255
    assert pixels.mean() == pytest.approx(config.data.mean[0], abs=5e-3)
    assert pixels.std() == pytest.approx(config.data.std[0], abs=5e-3)


def test_synthetic_images_are_a_function_of_their_index():
    _, train, val = sources("data=synthetic", "data.image_size=48", "data.num_train=20", "data.classes=3")
    _, again, _ = sources("data=synthetic", "data.image_size=48", "data.num_train=99", "data.classes=3")
    assert (train.image(7) == again.image(7)).all()
    assert (train.image(7) != val.image(7)).any()
    assert train.image(7).shape == (48, 48, 3)
    assert set(train.labels) == {0, 1, 2}


def test_a_sample_has_the_same_pixels_at_any_position_and_for_any_number_of_threads():
    from mvit.train.data.loader import Loader

    config, train, _ = sources()

    def pixels(indices, *, workers, epoch=1, seed=1):
        data = config.data.model_copy(update={"workers": workers})
        loader = Loader(data, augment=config.augment, seed=seed)
        (batch,) = loader.train(train, iter([np.array(indices)]), epoch=epoch)
        loader.close()
        return batch.images

    one = pixels([5, 9, 11], workers=1)
    assert (pixels([11, 5], workers=4) == one[[2, 0]]).all()
    assert (pixels([5], workers=1, epoch=2) != one[:1]).any()
    assert (pixels([5], workers=1, seed=2) != one[:1]).any()


def test_parts_of_a_global_batch_are_the_same_on_any_topology():
    from mvit.train.data import sampler

    order = sampler.epoch_order(100, seed=1, epoch=1)
    assert sorted(order) == list(range(100))
    whole = sampler.train_indices(order, step=2, global_batch_size=24, num_slices=1, part=0)
    for slices in (2, 3, 4, 8):
        parts = [
            sampler.train_indices(order, step=2, global_batch_size=24, num_slices=slices, part=part)
            for part in range(slices)
        ]
        assert (np.concatenate(parts) == whole).all()


def test_a_random_crop_keeps_its_ranges_and_stays_inside():
    from mvit.train.data.sampler import generator
    from mvit.train.data.transforms import random_crop

    config = CropConfig(scale=(0.2, 0.9), ratio=(0.75, 1.25))
    for index in range(1000):
        top, left, height, width = random_crop((60, 80), config, generator(0, 0, index, stream=3))
        assert 0 <= top <= 60 - height
        assert 0 <= left <= 80 - width
        assert 0.19 < height * width / 4800 < 0.92
        assert 0.72 < width / height < 1.30


def test_a_flip_has_the_asked_probability():
    from mvit.train.data.sampler import generator
    from mvit.train.data.transforms import augment

    image = np.arange(32 * 32 * 3, dtype=np.uint8).reshape(32, 32, 3)
    config = AugmentConfig(crop=None, interpolation="bilinear", horizontal_flip=0.3)
    flips = sum(
        bool((augment(image, config, size=32, random=generator(1, 1, i, stream=3)) != image).any()) for i in range(1000)
    )
    assert 250 < flips < 350


def test_evaluation_resizes_the_short_side_and_crops_the_centre():
    from mvit.train.data.transforms import INTERPOLATION, center

    image = np.zeros((100, 200, 3), np.uint8)
    image[:, 90:110] = 255
    view = center(image, size=56, fraction=0.875, interpolation=INTERPOLATION["bilinear"])
    assert view.shape == (56, 56, 3)
    assert view[:, 28].min() > 200
    assert view[:, 5].max() == 0


def test_input_is_normalised_and_ordered_as_configured():
    from mvit.train.data.transforms import to_input

    pixels = np.random.default_rng(0).integers(0, 256, (2, 4, 4, 3), np.uint8)
    mean, std = (0.1, 0.2, 0.3), (0.5, 0.6, 0.7)
    expected = ((pixels / 255 - mean) / std).transpose(0, 3, 1, 2)
    np.testing.assert_allclose(to_input(pixels, mean=mean, std=std, channel_order="rgb"), expected, atol=1e-5)
    swapped = ((pixels[..., ::-1] / 255 - mean) / std).transpose(0, 3, 1, 2)
    np.testing.assert_allclose(to_input(pixels, mean=mean, std=std, channel_order="bgr"), swapped, atol=1e-5)


def test_images_of_a_folder_are_decoded_as_rgb(tmp_path):
    root = make_folder(tmp_path)
    _, train, _ = sources("data=imagefolder", f"data.root={root}")
    image = train.image(5)  # dog/2.jpg
    assert image.shape == (30, 40, 3)
    assert np.abs(image.mean((0, 1)) - (40, 40, 90)).max() < 4


def test_a_file_that_breaks_later_is_named_with_its_path(tmp_path):
    from mvit.train.data.source import UnreadableImage

    root = make_folder(tmp_path)
    _, train, _ = sources("data=imagefolder", f"data.root={root}")
    (root / "train/cat/1.jpg").write_bytes(b"no image")
    with pytest.raises(UnreadableImage, match=r"train/cat/1\.jpg cannot be decoded"):
        train.image(1)


def test_a_folder_that_changed_since_the_plan_is_refused(tmp_path):
    from mvit.train.data.source import DataChanged, open_sources

    root = make_folder(tmp_path)
    config = parse(raw_config("data=imagefolder", f"data.root={root}"))
    facts = dataset.look(config.data)
    (root / "train/cat/1.jpg").unlink()
    with pytest.raises(DataChanged, match="has changed since the run was planned"):
        open_sources(config.data, facts)


def test_skipped_images_are_left_out(tmp_path):
    from mvit.train.data.source import open_sources

    root = make_folder(tmp_path)
    config = parse(raw_config("data=imagefolder", f"data.root={root}"))
    facts = dataset.look(config.data).model_copy(update={"skipped": ("train/cat/1.jpg", "val/dog/0.jpg")})
    train, val = open_sources(config.data, facts)
    assert (len(train.labels), len(val.labels)) == (5, 5)
