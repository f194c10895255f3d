import shutil

import pytest
from PIL import Image

from mvit import dataset
from mvit.dataset import DatasetError


def make_folder(root, *, classes=("cat", "dog"), per_class=3, size=(40, 30)):
    """An image folder with both splits."""
    for split in ("train", "val"):
        for number, name in enumerate(classes):
            folder = root / split / name
            folder.mkdir(parents=True)
            for index in range(per_class):
                Image.new("RGB", size, (40 * number, 20 * index, 90)).save(folder / f"{index}.jpg")
    return root


@pytest.fixture
def look(configured):
    def at(root):
        return dataset.look(configured("data=imagefolder", f"data.root={root}").data)

    return at


def test_a_folder_is_read_in_a_fixed_order_with_its_class_names(tmp_path, configured, look):
    root = make_folder(tmp_path)
    facts = look(root)
    assert (facts.num_train, facts.num_val, facts.class_names) == (6, 6, ("cat", "dog"))
    _, train, _ = dataset.scan(configured("data=imagefolder", f"data.root={root}").data)
    assert train.paths[0] == "train/cat/0.jpg"
    assert train.labels == (0, 0, 0, 1, 1, 1)


def test_the_fingerprint_changes_with_the_files(tmp_path, look):
    root = make_folder(tmp_path)
    before = look(root).fingerprint
    assert look(root).fingerprint == before
    (root / "train" / "cat" / "0.jpg").unlink()
    assert look(root).fingerprint != before


@pytest.mark.parametrize(
    ("spoil", "line"),
    [
        (lambda root: None, "data.root: .* is no folder; set the folder that holds train and val"),
        (lambda root: root.mkdir(), "data.train_folder: 'train' is no folder in .*; set its name"),
        (lambda root: (root / "train").mkdir(parents=True), "holds no class folders in .*; give one folder per class"),
        (lambda root: shutil.rmtree(make_folder(root) / "val"), "data.val_folder: 'val' is no folder in"),
    ],
)
def test_a_missing_or_empty_folder_is_one_line(tmp_path, look, spoil, line):
    spoil(tmp_path / "data")
    with pytest.raises(DatasetError, match=line) as caught:
        look(tmp_path / "data")
    assert "\n" not in str(caught.value)


def test_classes_without_images_are_one_line(tmp_path, look):
    for split in ("train", "val"):
        (tmp_path / split / "cat").mkdir(parents=True)
    with pytest.raises(DatasetError, match="data.train_folder: 'train' holds no images in"):
        look(tmp_path)


def test_a_validation_class_that_training_lacks_is_named(tmp_path, look):
    root = make_folder(tmp_path)
    (root / "val" / "cow").mkdir()
    with pytest.raises(DatasetError, match="has classes that train has not: cow"):
        look(root)


def test_unreadable_images_are_found_by_decoding_them(tmp_path):
    root = make_folder(tmp_path, size=(400, 300))
    whole = (root / "train/cat/0.jpg").read_bytes()
    (root / "train/cat/1.jpg").write_bytes(whole[: len(whole) // 2])
    (root / "train/cat/2.jpg").write_bytes(b"no image")
    (root / "train/dog/0.jpg").write_bytes(b"")
    Image.new("RGB", (9, 9)).save(root / "train/dog/1.jpg", "GIF")
    Image.new("RGB", (5, 5)).save(root / "train/dog/2.jpg", "JPEG")
    paths = [str(path.relative_to(root)) for path in sorted(root.rglob("*.jpg"))]
    assert dataset.unreadable(root, paths, threads=2) == [
        "train/cat/1.jpg",
        "train/cat/2.jpg",
        "train/dog/0.jpg",
        "train/dog/1.jpg",
    ]
