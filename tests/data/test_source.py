import gc
import os
import pickle
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from mvit.data import dataset, digits, index, listing
from mvit.data.sample import Blob, File
from mvit.errors import ConfigError, DataChanged, DatasetError
from mvit.parent.freeze import freeze, plan_launch
from mvit.parent.host import this_host
from mvit.parent.request.check import parse
from mvit.rundir.frozen import read_run
from mvit.worker.input.decode import to_rgb
from tests.conftest import open_data, raw_config
from tests.data.test_dataset import make_cifar10, make_cifar100, make_folder


def sources(*overrides):
    config = parse(raw_config(*overrides))
    return config, *open_data(config.data)


def pixels(source, index):
    """(H, W, 3) uint8."""
    with source.sample(index).open() as image:
        return np.array(to_rgb(image))


def test_digits_are_split_in_proportion_and_without_overlap():
    _, train, val = sources()
    assert (len(train.labels), len(val.labels)) == (digits.NUM_TRAIN, digits.NUM_VAL)
    share = np.bincount(val.labels) / np.bincount(np.concatenate([train.labels, val.labels]))
    assert np.abs(share - 0.2).max() < 0.01
    pictures = {pixels(train, i).tobytes() for i in range(len(train.labels))}
    assert not any(pixels(val, i).tobytes() in pictures for i in range(len(val.labels)))
    assert pixels(train, 0).shape == (64, 64, 3)


def test_digits_are_those_that_scikit_learn_loads():
    from sklearn.datasets import load_digits  # seconds, which is why digits.py reads the table itself

    loaded = load_digits()
    stored = digits.read_table()
    assert np.array_equal(stored[:, :64], loaded.data)
    assert np.array_equal(stored[:, 64], loaded.target)


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
    for number in (1, 2):
        with pytest.raises(OSError, match="cannot identify image file"):
            train.sample(number).open()
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_truncated_jpeg_is_an_error_when_it_is_decoded(tmp_path):
    root = make_folder(tmp_path, size=(400, 300))
    _, train, _ = sources("data=imagefolder", f"data.root={root}")
    os.truncate(root / "train/cat/0.jpg", (root / "train/cat/0.jpg").stat().st_size // 2)
    with pytest.raises(OSError, match="truncated"):
        pixels(train, 0)


def surveyed(root, *overrides):
    config = parse(raw_config("data=imagefolder", f"data.root={root}", *overrides))
    return config.data, dataset.survey(config.data)


def readable(survey, cache, *, training=True):
    return survey.readable(training=training, threads=2, cache=cache, before=lambda _: None)


def test_workers_open_a_folder_as_it_was_surveyed(tmp_path):
    root = make_folder(tmp_path / "data")
    data, survey = surveyed(root)
    survey.write_index(tmp_path / "data.npz")
    Image.new("RGB", (9, 9)).save(root / "train/cat/9.jpg")
    (root / "val/dog/2.jpg").unlink()
    train, val = dataset.open_splits(data, facts=survey.facts, index=tmp_path / "data.npz")
    assert (len(train.labels), len(val.labels)) == (6, 6)
    with pytest.raises(FileNotFoundError, match=r"val/dog/2\.jpg"):
        val.sample(5).open()


def test_images_that_cannot_be_decoded_are_left_out_with_skip(tmp_path):
    root = make_folder(tmp_path / "data")
    for path in ("train/cat/1.jpg", "val/dog/0.jpg"):
        (root / path).write_bytes(b"no image")
    data, survey = surveyed(root, "data.on_unreadable=skip")
    survey = readable(survey, tmp_path / "cache")
    assert (survey.facts.num_train, survey.facts.num_val) == (5, 5)
    assert survey.facts.skipped == ("train/cat/1.jpg", "val/dog/0.jpg")
    survey.write_index(tmp_path / "data.npz")
    train, val = dataset.open_splits(data, facts=survey.facts, index=tmp_path / "data.npz")
    assert (len(train.labels), len(val.labels)) == (5, 5)
    assert train.sample(1).name == f"{root}/train/cat/2.jpg"
    assert list(train.labels) == [0, 0, 1, 1, 1]


def test_images_that_cannot_be_decoded_are_all_named_when_none_may_be_skipped(tmp_path):
    root = make_folder(tmp_path / "data")
    for path in ("train/cat/1.jpg", "val/dog/0.jpg"):
        (root / path).write_bytes(b"no image")
    _, survey = surveyed(root)
    remedy = "remove or repair it, or set data.on_unreadable=skip"
    for training, broken in ((True, ("train/cat/1.jpg", "val/dog/0.jpg")), (False, ("val/dog/0.jpg",))):
        with pytest.raises(ConfigError) as caught:
            readable(survey, tmp_path / "cache", training=training)
        lines = [f"data.root: '{root}/{path}' cannot be decoded; {remedy}" for path in broken]
        assert str(caught.value).splitlines() == lines


def test_a_class_that_skipping_would_empty_is_refused(tmp_path):
    root = make_folder(tmp_path / "data", per_class=1)
    (root / "train/dog/0.jpg").write_bytes(b"no image")
    _, survey = surveyed(root, "data.on_unreadable=skip")
    with pytest.raises(ConfigError, match="data.root: 'dog' is a class without decodable images; repair"):
        readable(survey, tmp_path / "cache")
    assert readable(survey, tmp_path / "cache", training=False) == survey


def test_one_launch_lists_each_directory_once(tmp_path, monkeypatch):
    root = make_folder(tmp_path / "data")
    (root / "train/cat/1.jpg").write_bytes(b"no image")
    overrides = ("data=imagefolder", f"data.root={root}", "data.on_unreadable=skip", f"runs_dir={tmp_path}/runs")
    raw = raw_config(*overrides, "train.global_batch_size=2")
    listed = Counter()
    scandir = os.scandir

    def counting(path="."):
        listed[str(path)] += 1
        return scandir(path)

    monkeypatch.setattr(os, "scandir", counting)
    folder = freeze(plan_launch(raw, host=this_host()), tmp_path / "run", made_of=({}, "")).folder
    for _ in range(2):  # ranks
        run = read_run(folder)
        train, _ = dataset.open_splits(run.config.data, facts=run.plan.dataset, index=folder.data_index)
        assert len(train.labels) == 5
    classes = {str(root / split / name): 1 for split in ("train", "val") for name in ("cat", "dog")}
    splits = {str(root / split): 1 for split in ("train", "val")}
    assert {path: count for path, count in listed.items() if path.startswith(str(root))} == {**classes, **splits}


def test_an_index_that_is_missing_damaged_or_of_another_run_is_one_line(tmp_path):
    data, survey = surveyed(make_folder(tmp_path / "data"))
    path = tmp_path / "data.npz"

    def refused():
        with pytest.raises(DataChanged) as caught:
            dataset.open_splits(data, facts=survey.facts, index=path)
        return str(caught.value)

    assert refused() == f"{path}: the run's data index is missing; start a new run"
    survey.write_index(path)
    whole = path.read_bytes()
    damaged = [whole[:size] for size in (0, 10, len(whole) // 2, len(whole) - 1)]
    damaged += [whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :] for at in (0, len(whole) - 30)]
    for content in damaged:
        path.write_bytes(content)
        assert refused() == f"{path}: the run's data index is damaged; start a new run"
    _, other = surveyed(make_folder(tmp_path / "other", per_class=2))
    other.write_index(path)
    assert refused() == f"{path}: the data index belongs to another run; start a new run"


def test_a_flipped_bit_of_an_index_never_goes_unnoticed(tmp_path):
    _, survey = surveyed(make_folder(tmp_path / "data"))
    path = tmp_path / "data.npz"
    survey.write_index(path)
    whole = path.read_bytes()
    expected = index.read(path, facts=survey.facts)
    for at in range(0, len(whole), 7):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :])
        try:
            opened = index.read(path, facts=survey.facts)
        except DataChanged:
            continue
        for one, other in zip(opened, expected, strict=True):  # a field that nobody reads, as a time stamp
            assert one.joined == other.joined
            assert (one.ends == other.ends).all()
            assert (one.labels == other.labels).all()


def test_an_index_keeps_names_that_are_not_utf_8_and_an_empty_split(tmp_path):
    paths = tuple(os.fsdecode(name) for name in (b"train/\xff/1.jpg", "train/\u00b0/ 2 .jpg".encode()))
    split = listing.Split(paths, (0, 1), (1, 2), (1, 2))
    files = listing.Listing(tmp_path, ("a", "b"), split, split.without(paths))
    facts = surveyed(make_folder(tmp_path / "data"))[1].facts.model_copy(update={"num_train": 2, "num_val": 0})
    index.write(tmp_path / "data.npz", files, fingerprint=facts.fingerprint)
    train, val = index.read(tmp_path / "data.npz", facts=facts)
    assert tuple(train.path(i) for i in range(2)) == paths
    assert (list(train.labels), len(val.labels)) == ([0, 1], 0)


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
    facts = dataset.survey(config.data).facts
    (root / "test_batch.bin").write_bytes(b"\x01" * 3073 * 4)
    with pytest.raises(DataChanged, match="has changed"):
        dataset.open_splits(config.data, facts=facts, index=tmp_path)
    (root / "test_batch.bin").unlink()
    with pytest.raises(DatasetError, match="has no test_batch.bin"):
        dataset.open_splits(config.data, facts=facts, index=tmp_path)


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
    with pytest.raises(OSError, match="the file is truncated"):
        Blob(str(tmp_path / "shard"), 50, 51, "x", 0).open()
    with pytest.raises(OSError, match="the packed bytes have changed"):
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
