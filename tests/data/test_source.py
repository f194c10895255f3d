import gc
import os
import pickle

import numpy as np
import pytest
from PIL import Image

from mvit.data import dataset
from mvit.data.facts import DatasetError
from mvit.parent.request.check import parse
from mvit.worker.input.decode import to_rgb
from mvit.worker.input.sample import Blob, File
from mvit.worker.input.source import DataChanged, open_sources
from tests.conftest import raw_config
from tests.data.test_dataset import make_cifar10, make_cifar100, make_folder


def sources(*overrides):
    config = parse(raw_config(*overrides))
    return config, *open_sources(config.data, dataset.look(config.data))


def pixels(source, index):
    """(H, W, 3) uint8."""
    with source.sample(index).open() as image:
        return np.array(to_rgb(image))


def test_digits_are_split_in_proportion_and_without_overlap():
    _, train, val = sources()
    assert (len(train.labels), len(val.labels)) == (dataset.DIGITS_TRAIN, dataset.DIGITS_VAL)
    share = np.bincount(val.labels) / np.bincount(np.concatenate([train.labels, val.labels]))
    assert np.abs(share - 0.2).max() < 0.01
    pictures = {pixels(train, i).tobytes() for i in range(len(train.labels))}
    assert not any(pixels(val, i).tobytes() in pictures for i in range(len(val.labels)))
    assert pixels(train, 0).shape == (64, 64, 3)


def test_the_configured_mean_and_std_of_digits_are_those_of_the_data():
    config, train, _ = sources()
    images = np.stack([pixels(train, i) for i in range(len(train.labels))]) / 255
    assert images.mean() == pytest.approx(config.data.mean[0], abs=5e-3)
    assert images.std() == pytest.approx(config.data.std[0], abs=1e-2)


def test_synthetic_images_are_a_function_of_their_index():
    _, train, val = sources("data=synthetic", "data.image_size=48", "data.num_train=20", "data.classes=3")
    _, again, _ = sources("data=synthetic", "data.image_size=48", "data.num_train=99", "data.classes=3")
    assert (pixels(train, 7) == pixels(again, 7)).all()
    assert (pixels(train, 7) != pixels(val, 7)).any()
    assert pixels(train, 7).shape == (48, 48, 3)
    assert set(train.labels) == {0, 1, 2}
    assert pixels(train, 7)[5, 5].tolist() == [89, 130, 51]  # as in every version so far


def test_an_image_file_is_opened_and_not_yet_decoded(tmp_path):
    root = make_folder(tmp_path, size=(400, 300))
    _, train, _ = sources("data=imagefolder", f"data.root={root}")
    assert train.labels.dtype == np.int32
    assert train.sample(5).name == f"{root}/train/dog/2.jpg"
    with train.sample(5).open() as image:
        image.draft("RGB", (50, 50))
        assert image.size == (100, 75)
        assert np.abs(np.asarray(image).mean((0, 1)) - (40, 40, 90)).max() < 4


@pytest.mark.filterwarnings("error::ResourceWarning")
def test_opening_a_file_leaks_no_handle(tmp_path):
    root = make_folder(tmp_path)
    (root / "train/cat/1.jpg").write_bytes(b"no image")
    Image.new("RGB", (9, 9)).save(root / "train/cat/2.jpg", "GIF")
    _, train, _ = sources("data=imagefolder", f"data.root={root}")
    before = len(os.listdir("/proc/self/fd"))
    pixels(train, 0)
    to_rgb(train.sample(3).open())  # a loaded file is closed
    for index in (1, 2):
        with pytest.raises(OSError, match="cannot identify image file"):
            train.sample(index).open()
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_truncated_jpeg_is_an_error_when_it_is_decoded(tmp_path):
    root = make_folder(tmp_path, size=(400, 300))
    _, train, _ = sources("data=imagefolder", f"data.root={root}")
    os.truncate(root / "train/cat/0.jpg", (root / "train/cat/0.jpg").stat().st_size // 2)
    with pytest.raises(OSError, match="truncated"):
        pixels(train, 0)


def test_a_folder_that_changed_since_the_plan_is_refused(tmp_path):
    root = make_folder(tmp_path)
    config = parse(raw_config("data=imagefolder", f"data.root={root}"))
    facts = dataset.look(config.data)
    (root / "train/cat/1.jpg").unlink()
    with pytest.raises(DataChanged, match="has changed since the run was planned"):
        open_sources(config.data, facts)


def test_skipped_images_are_left_out(tmp_path):
    root = make_folder(tmp_path)
    config = parse(raw_config("data=imagefolder", f"data.root={root}"))
    facts = dataset.look(config.data).model_copy(update={"skipped": ("train/cat/1.jpg", "val/dog/0.jpg")})
    train, val = open_sources(config.data, facts)
    assert (len(train.labels), len(val.labels)) == (5, 5)
    assert train.sample(1).name.endswith("train/cat/2.jpg")
    assert list(train.labels) == [0, 0, 1, 1, 1]


def test_a_record_of_cifar_10_is_an_image_with_channels_last(tmp_path):
    _, train, val = sources("data=cifar10", f"data.root={make_cifar10(tmp_path / 'data')}")
    assert list(train.labels[:9]) == [0, 1, 2, 3, 1, 2, 3, 4, 2]
    assert list(val.labels) == [5, 6, 7, 8]
    image = pixels(train, 6)
    flat = np.arange(3072, dtype=np.uint16).astype(np.uint8)
    assert image.shape == (32, 32, 3)
    assert (image == flat.reshape(3, 32, 32).transpose(1, 2, 0)).all()
    assert train.sample(6).name.endswith("data_batch_2.bin record 2")


def test_a_record_of_cifar_100_has_its_fine_label_and_its_own_pixels(tmp_path):
    _, train, val = sources("data=cifar100", f"data.root={make_cifar100(tmp_path / 'data')}")
    assert list(train.labels) == [0, 1, 2, 3, 4, 5]
    assert [pixels(val, i).mean() for i in range(3)] == [0, 1, 2]


def test_cifar_files_that_changed_since_the_plan_are_refused(tmp_path):
    root = make_cifar10(tmp_path / "data")
    config = parse(raw_config("data=cifar10", f"data.root={root}"))
    facts = dataset.look(config.data)
    (root / "test_batch.bin").write_bytes(b"\x01" * 3073 * 4)
    with pytest.raises(DataChanged, match="has changed"):
        open_sources(config.data, facts)
    (root / "test_batch.bin").unlink()
    with pytest.raises(DatasetError, match="holds no test_batch.bin"):
        open_sources(config.data, facts)


@pytest.mark.parametrize("kind", ["digits", "synthetic", "imagefolder", "cifar10"])
def test_a_sample_travels_to_another_process(tmp_path, kind):
    if kind == "imagefolder":
        make_folder(tmp_path)
    if kind == "cifar10":
        make_cifar10(tmp_path / "cifar-10-batches-bin")
    folder = [f"data.root={tmp_path}"] if kind in ("imagefolder", "cifar10") else []
    _, train, _ = sources(f"data={kind}", *folder)
    sent = pickle.dumps(train.sample(3))
    if folder:
        assert len(sent) < 400
    with pickle.loads(sent).open() as image:
        assert (np.array(to_rgb(image)) == pixels(train, 3)).all()


def test_a_blob_whose_file_ends_or_whose_bytes_changed_is_an_error(tmp_path):
    (tmp_path / "shard").write_bytes(bytes(100))
    with pytest.raises(OSError, match="its file ends before it"):
        Blob(str(tmp_path / "shard"), 50, 51, "x", 0).open()
    with pytest.raises(OSError, match="not those that were packed"):
        Blob(str(tmp_path / "shard"), 50, 50, "x", 0).open()
    with pytest.raises(FileNotFoundError):
        Blob(str(tmp_path / "gone"), 50, 50, "x", 0).open()


def opened(tmp_path, image, ending, **options):
    path = tmp_path / f"image{ending}"
    image.save(path, **options)
    with File(str(path)).open() as found:
        return found.mode, np.array(to_rgb(found))


def test_grey_cmyk_palette_and_deep_images_come_out_as_rgb(tmp_path):
    ramp = np.tile(np.arange(256, dtype=np.uint8), (16, 1))
    mode, rgb = opened(tmp_path, Image.fromarray(ramp), ".jpg", quality=100)
    assert mode == "L"
    assert rgb.shape == (16, 256, 3)
    assert np.abs(rgb - ramp[..., None].astype(int)).max() <= 2

    colour = Image.new("RGB", (16, 16), (200, 100, 50))
    mode, rgb = opened(tmp_path, colour.convert("CMYK"), ".jpg", quality=100)
    assert mode == "CMYK"
    assert np.abs(rgb.astype(int) - (200, 100, 50)).max() <= 3

    mode, rgb = opened(tmp_path, colour.convert("P", palette=Image.Palette.ADAPTIVE), ".png")
    assert mode == "P"
    assert (rgb == (200, 100, 50)).all()

    deep = Image.fromarray((ramp.astype(np.uint16) << 8) + 17)
    mode, rgb = opened(tmp_path, deep, ".png")
    assert mode.startswith("I")
    assert (rgb == ramp[..., None]).all()

    mode, rgb = opened(tmp_path, Image.fromarray(ramp > 99), ".png")
    assert mode == "1"
    assert (rgb == np.where(ramp > 99, 255, 0)[..., None]).all()


def test_transparency_is_flattened_onto_black(tmp_path):
    half = Image.new("RGBA", (4, 4), (200, 100, 50, 128))
    assert np.abs(opened(tmp_path, half, ".png")[1].astype(int) - (100, 50, 25)).max() <= 1
    assert (opened(tmp_path, Image.new("LA", (4, 4), (200, 0)), ".png")[1] == 0).all()
    palette = Image.new("P", (4, 4), 1)
    palette.putpalette([9, 9, 9, 200, 100, 50])
    assert (opened(tmp_path, palette, ".png", transparency=1)[1] == 0).all()
    assert (opened(tmp_path, palette, ".png", transparency=0)[1] == (200, 100, 50)).all()
    assert (opened(tmp_path, Image.new("RGB", (4, 4), (9, 8, 7)), ".png", transparency=(9, 8, 7))[1] == 0).all()
    assert (opened(tmp_path, Image.new("RGBA", (4, 4), (200, 100, 50, 0)), ".webp", lossless=True)[1] == 0).all()
