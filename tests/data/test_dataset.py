import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mvit.data import dataset, imagefolder, readable
from mvit.errors import ConfigError, DatasetError
from mvit.parent.freeze import Surveys, freeze, plan_launch
from mvit.parent.host import this_host
from mvit.rundir.frozen import read_run
from mvit.rundir.paths import RunDir
from tests.conftest import CHECKOUT, raw_config


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
def facts_at(configured):
    def at(root):
        return dataset.survey(configured("data=imagefolder", f"data.root={root}").data).facts

    return at


def test_a_folder_is_read_in_a_fixed_order_with_its_class_names(tmp_path, configured, facts_at):
    root = make_folder(tmp_path)
    facts = facts_at(root)
    assert (facts.num_train, facts.num_val, facts.class_names) == (6, 6, ("cat", "dog"))
    train = imagefolder.scan(configured("data=imagefolder", f"data.root={root}").data).train
    assert train.paths[0] == "train/cat/0.jpg"
    assert train.labels == (0, 0, 0, 1, 1, 1)


def test_the_fingerprint_changes_with_the_files(tmp_path, facts_at):
    root = make_folder(tmp_path)
    before = facts_at(root).fingerprint
    assert facts_at(root).fingerprint == before
    (root / "train" / "cat" / "0.jpg").unlink()
    assert facts_at(root).fingerprint != before


@pytest.mark.parametrize(
    ("spoil", "line"),
    [
        (lambda root: None, "data.root: .* does not exist; set it to the directory that contains train and val"),
        (lambda root: root.mkdir(), "data.train_folder: 'train' does not exist in .*; set it to the name"),
        (lambda root: (root / "train").mkdir(parents=True), "has no class directories in .*; create one directory"),
        (lambda root: shutil.rmtree(make_folder(root) / "val"), "data.val_folder: 'val' does not exist in"),
    ],
)
def test_a_missing_or_empty_folder_is_one_line(tmp_path, facts_at, spoil, line):
    spoil(tmp_path / "data")
    with pytest.raises(DatasetError, match=line) as caught:
        facts_at(tmp_path / "data")
    assert "\n" not in str(caught.value)


def test_classes_without_images_are_one_line(tmp_path, facts_at):
    for split in ("train", "val"):
        (tmp_path / split / "cat").mkdir(parents=True)
    with pytest.raises(DatasetError, match="data.train_folder: 'train' has no images in"):
        facts_at(tmp_path)


def test_a_training_class_without_images_is_named_and_one_of_validation_is_not(tmp_path, facts_at):
    root = make_folder(tmp_path)
    shutil.rmtree(root / "val" / "dog")
    assert facts_at(root).num_val == 3
    for path in (root / "train" / "dog").iterdir():
        path.rename(path.with_suffix(".txt"))
    with pytest.raises(DatasetError, match="data.train_folder: 'train' has empty class directories: dog"):
        facts_at(root)


def test_a_validation_class_that_training_lacks_is_named(tmp_path, facts_at):
    root = make_folder(tmp_path)
    (root / "val" / "cow").mkdir()
    with pytest.raises(DatasetError, match="has classes that are not in train: cow"):
        facts_at(root)


def test_unreadable_images_are_found_by_decoding_them(tmp_path):
    root = make_folder(tmp_path, size=(400, 300))
    whole = (root / "train/cat/0.jpg").read_bytes()
    (root / "train/cat/1.jpg").write_bytes(whole[: len(whole) // 2])
    (root / "train/cat/2.jpg").write_bytes(b"no image")
    (root / "train/dog/0.jpg").write_bytes(b"")
    Image.new("RGB", (9, 9)).save(root / "train/dog/1.jpg", "GIF")
    two = [Image.new("RGB", (50, 50)), Image.new("RGB", (50, 50), "red")]
    two[0].save(root / "train/dog/2.jpg", "MPO", save_all=True, append_images=two[1:])  # as telephones write it
    with Image.open(root / "train/dog/2.jpg") as image:
        assert image.format == "MPO"
    Image.new("RGB", (5, 5)).save(root / "val/cat/0.jpg", "WEBP")
    paths = [str(path.relative_to(root)) for path in sorted(root.rglob("*.jpg"))]
    assert readable.unreadable(root, paths, threads=2) == [
        "train/cat/1.jpg",
        "train/cat/2.jpg",
        "train/dog/0.jpg",
        "train/dog/1.jpg",
    ]


def unreadable_of(root, data, folder, decoded):
    listing = imagefolder.scan(data)
    splits = (listing.train, listing.val)
    return readable.unreadable_cached(root, splits, folder=folder, threads=2, before=decoded.append)


def test_an_unchanged_folder_is_decoded_once(tmp_path, configured):
    root = make_folder(tmp_path / "data")
    data = configured("data=imagefolder", f"data.root={root}").data
    (root / "val/cat/2.jpg").write_bytes(b"no image")
    cache, decoded = tmp_path / "runs" / ".readable", []
    assert unreadable_of(root, data, cache, decoded) == ["val/cat/2.jpg"]
    assert unreadable_of(root, data, cache, decoded) == ["val/cat/2.jpg"]
    assert decoded == [12]
    whole = (root / "val/cat/1.jpg").read_bytes()
    (root / "val/cat/1.jpg").write_bytes(b"x" * len(whole))
    os.utime(root / "val/cat/1.jpg", ns=(1, 1))
    assert unreadable_of(root, data, cache, decoded) == ["val/cat/1.jpg", "val/cat/2.jpg"]
    assert decoded == [12, 12]


@pytest.mark.parametrize("content", ["", "{", "[]", '{"unreadable": []}', '{"images": 12, "unreadable": ["other"]}'])
def test_a_damaged_cache_is_rebuilt(tmp_path, configured, content):
    root = make_folder(tmp_path / "data")
    data = configured("data=imagefolder", f"data.root={root}").data
    decoded = []
    unreadable_of(root, data, tmp_path, decoded)
    (file,) = tmp_path.glob("*.json")
    file.write_text(content)
    assert unreadable_of(root, data, tmp_path, decoded) == []
    assert decoded == [12, 12]
    assert json.loads(file.read_text()) == {"images": 12, "unreadable": []}


def test_a_result_that_cannot_be_cached_is_still_returned(tmp_path, configured):
    root = make_folder(tmp_path / "data")
    (tmp_path / "file").write_text("")
    decoded = []
    data = configured("data=imagefolder", f"data.root={root}").data
    assert unreadable_of(root, data, tmp_path / "file" / "cache", decoded) == []


def test_imagenets_names_of_classes_are_taken_and_made_unique(tmp_path, facts_at):
    root = make_folder(tmp_path, classes=("n01440764", "n02012849", "n03126707"))
    assert facts_at(root).class_names == ("n01440764", "n02012849", "n03126707")
    (root / "LOC_synset_mapping.txt").write_text(
        "n01440764 tench, Tinca tinca\nn02012849 crane\nn03126707 crane\nn09999999 valley, vale\n"
    )
    assert facts_at(root).class_names == ("tench", "crane (n02012849)", "crane (n03126707)")


def test_class_names_of_a_file_keep_the_order_of_the_folders(tmp_path, configured):
    root = make_folder(tmp_path / "data")
    (tmp_path / "names").write_text("dog Canis lupus familiaris, hound\ncat\n")
    config = configured("data=imagefolder", f"data.root={root}", f"data.class_names={tmp_path}/names")
    assert dataset.survey(config.data).facts.class_names == ("cat", "Canis lupus familiaris")
    (tmp_path / "names").write_text("dog Dog\n")
    with pytest.raises(DatasetError, match="data.class_names: .*/names' has no line for class cat; add"):
        dataset.survey(config.data)
    (tmp_path / "names").unlink()
    with pytest.raises(
        DatasetError, match=r"data.class_names: .* cannot be read \(No such file or directory\); use a UTF-8 text file"
    ):
        dataset.survey(config.data)


def make_cifar10(root, *, per_file=4):
    """A CIFAR-10 folder with few records; record k of the file f has the class f + k and pixels of its number."""
    root.mkdir(parents=True)
    names = [f"data_batch_{number}.bin" for number in range(1, 6)] + ["test_batch.bin"]
    for number, name in enumerate(names):
        records = [
            bytes([number + k]) + np.arange(3072, dtype=np.uint16).astype(np.uint8).tobytes() for k in range(per_file)
        ]
        (root / name).write_bytes(b"".join(records))
    (root / "batches.meta.txt").write_text("\n".join(f"thing {n}" for n in range(10)) + "\n\n")
    return root


def make_cifar100(root):
    root.mkdir(parents=True)
    for name, count in (("train.bin", 6), ("test.bin", 3)):
        (root / name).write_bytes(b"".join(bytes([99, k]) + bytes([k]) * 3072 for k in range(count)))
    (root / "fine_label_names.txt").write_text("\n".join(f"fine {n}" for n in range(100)))
    return root


@pytest.mark.parametrize("root", ["cifar-10-batches-bin", "."])
def test_cifar_10_is_found_in_its_folder_and_in_the_one_above(tmp_path, configured, root):
    make_cifar10(tmp_path / "cifar-10-batches-bin")
    facts = dataset.survey(configured("data=cifar10", f"data.root={tmp_path / root}").data).facts
    assert (facts.num_train, facts.num_val) == (20, 4)
    assert facts.class_names == tuple(f"thing {n}" for n in range(10))


def test_cifar_100_has_its_fine_labels(tmp_path, configured):
    facts = dataset.survey(configured("data=cifar100", f"data.root={make_cifar100(tmp_path / 'data')}").data).facts
    assert (facts.num_train, facts.num_val, facts.class_names[99]) == (6, 3, "fine 99")


@pytest.mark.parametrize(
    ("spoil", "line"),
    [
        (shutil.rmtree, "does not exist; set it to the directory that contains the unpacked cifar-10-binary.tar.gz"),
        (lambda root: (root / "data_batch_3.bin").unlink(), "has no data_batch_3.bin; unpack cifar-10-binary.tar.gz"),
        (lambda root: (root / "batches.meta.txt").unlink(), "has no batches.meta.txt; unpack"),
        (
            lambda root: os.truncate(root / "test_batch.bin", 12000),
            "has 12000 bytes, not a multiple of the record size 3073",
        ),
        (lambda root: os.truncate(root / "test_batch.bin", 0), "test_batch.bin' has 0 bytes"),
        (
            lambda root: (root / "test_batch.bin").write_bytes(b"\x0a" * 3073),
            "contains a record of class 10, but .* lists only 10 cl",
        ),
    ],
)
def test_a_spoilt_cifar_folder_is_one_line(tmp_path, configured, spoil, line):
    root = make_cifar10(tmp_path / "data")
    spoil(root)
    with pytest.raises(DatasetError, match=f"data.root: .*{line}") as caught:
        dataset.survey(configured("data=cifar10", f"data.root={root}").data)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("manifest", "line"),
    [
        (None, "has no manifest.json; pack it with: python -m mvit pack SRC OUT"),
        ("{", "manifest.json' is damaged; pack it again with: python -m mvit pack SRC OUT --overwrite"),
        ('{"format": 2}', "manifest.json' has format 2, expected 1; pack it again"),
    ],
)
def test_a_folder_without_a_manifest_that_can_be_read_is_one_line(tmp_path, configured, manifest, line):
    if manifest:
        (tmp_path / "manifest.json").write_text(manifest)
    with pytest.raises(DatasetError, match=f"data.root: .*{line}") as caught:
        dataset.survey(configured("data=mindrecord", f"data.root={tmp_path}").data)
    assert "\n" not in str(caught.value)


def test_surveying_data_loads_no_library_for_arrays_or_images(tmp_path, configured):
    root = make_folder(tmp_path / "folder")
    cifar = make_cifar10(tmp_path / "cifar")
    program = (
        "import sys\n"
        "from mvit.config import validated_json\n"
        "from mvit.data import dataset\n"
        "for text in sys.argv[1:]:\n"
        "    dataset.survey(validated_json(text).data)\n"
        "print(sorted({'numpy', 'PIL', 'sklearn'} & set(sys.modules)))"
    )
    choices = (["data=digits"], ["data=synthetic"], ["data=imagefolder", f"data.root={root}"])
    choices = (*choices, ["data=cifar10", f"data.root={cifar}"])
    texts = [configured(*overrides).model_dump_json() for overrides in choices]
    command = [sys.executable, "-c", program, *texts]
    done = subprocess.run(command, capture_output=True, text=True, cwd=CHECKOUT, check=True)
    assert done.stdout == "[]\n"


def test_an_image_that_the_system_does_not_read_is_not_taken_for_a_broken_one(tmp_path, configured, monkeypatch):
    root = make_folder(tmp_path / "data")
    data = configured("data=imagefolder", f"data.root={root}").data
    opened = Image.open

    def denied(path, **options):
        if str(path).endswith("val/cat/2.jpg"):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return opened(path, **options)

    monkeypatch.setattr(Image, "open", denied)
    cache, decoded = tmp_path / ".readable", []
    with pytest.raises(PermissionError):
        unreadable_of(root, data, cache, decoded)
    with pytest.raises(ConfigError) as caught:
        Surveys().readable(data, training=True, cache=cache)
    (problem,) = caught.value.problems
    assert str(problem).startswith(f"data: '{root}/val/cat/2.jpg' cannot be read (Permission denied); check")
    monkeypatch.undo()
    assert unreadable_of(root, data, cache, decoded) == []


def test_names_that_are_not_utf_8_can_be_frozen(tmp_path, configured):
    root = make_folder(tmp_path / "data")
    for split in ("train", "val"):
        (root / split / "dog").rename(os.fsdecode(bytes(root / split) + b"/d\xf4g"))
    Path(os.fsdecode(bytes(root) + b"/val/cat/br\xf6ken.jpg")).write_bytes(b"no image")
    words = ("data=imagefolder", f"data.root={root}", "data.on_unreadable=skip", "train.global_batch_size=2")
    planned = plan_launch(raw_config(*words, f"runs_dir={tmp_path}/runs"), host=this_host())
    freeze(planned, tmp_path / "run", made_of=({}, ""))
    facts = read_run(RunDir(tmp_path / "run")).plan.dataset
    assert facts.class_names == ("cat", r"d\xf4g")
    assert facts.skipped == (r"val/cat/br\xf6ken.jpg",)
