"""python -m mvit init: what it sees in a folder of images, and the experiment that it writes about it."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mvit.cli import main
from mvit.data import layout
from mvit.parent.freeze import plan_launch
from mvit.parent.host import this_host
from mvit.parent.request.check import parse
from mvit.parent.request.compose import Composer
from tests.conftest import TINY, launcher


def draw(folder, count, *, size=(150, 110), grey=False):
    """Images of noise."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(count)
    for index in range(count):
        pixels = random.integers(0, 256, (size[1], size[0]) if grey else (size[1], size[0], 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{index}.png")


@pytest.fixture
def flowers(tmp_path):
    """A folder of images; `splits` are its folders with the images of each class in them."""

    def make(splits=None, **options):
        root = tmp_path / "flowers"
        for split, counts in (splits or {"train": (9, 6), "valid": (3, 2)}).items():
            for name, count in zip(("aster", "rose"), counts, strict=False):
                draw(root / split / name, count, **options)
        return root

    return make


@pytest.fixture
def init(tmp_path, monkeypatch, capfd):
    """The command: its exit code, and what it printed."""
    monkeypatch.chdir(tmp_path)

    def run(root, *words):
        code = main.main(["init", "mine", "--data", str(root), *words])
        out, err = capfd.readouterr()
        return code, out, err

    return run


def composed(name="flowers", *overrides):
    return Composer((Path("mine"),)).compose([f"experiment={name}", *overrides])


def test_the_experiment_composes_and_can_be_launched(init, flowers):
    code, out, err = init(flowers())
    assert (code, err) == (0, "")
    raw = composed()
    assert (raw["name"], raw["data"]["val_folder"], raw["data"]["image_size"]) == ("flowers", "valid", 96)
    assert (raw["model"]["name"], raw["train"]["global_batch_size"], raw["train"]["epochs"]) == ("xx_small", 8, 100)
    planned = plan_launch({**raw, "dry_run": True}, host=this_host())
    assert (planned.survey.facts.num_train, planned.survey.facts.num_val) == (15, 5)
    assert "train 15, valid 5 images, 2 classes" in out
    assert "in colour, 150x110 in the median of 15" in out
    assert "--config-dir mine experiment=flowers dry_run=true" in out.splitlines()[-3]


def test_every_choice_stands_in_the_file_with_what_was_seen(init, flowers):
    init(flowers({"train": (30, 3), "val": (4, 0), "test": (1, 1)}, grey=True, size=(40, 50)))
    text = Path("mine/experiment/flowers.yaml").read_text()
    for line in (
        "# data:     train 33, val 4 images, 2 classes",
        "# balance:  3 (rose) to 30 (aster) images to train on in a class",
        "# images:   grey, 40x50 in the median of 33; widths 40 to 40, heights 50 to 50",
        "# expected: more than 100.0 %, the share of the largest class in val",
        "# warning:  rose has 3 images, another class 30",
        "# warning:  val has no image of rose: how well it is recognised is not measured",
        "#   rose: 3 + 0",
        "init=weights init.checkpoint=WEIGHTS",
        "  - override /augment: light  # grey images",
        "task=evaluate task.checkpoint=RUN data.val_folder=test",
        "  image_size: 64  # the smallest",
        "  eval_crop_fraction: 1.0  # nothing is cropped off",
    ):
        assert line in text, line
    assert parse(composed())


def test_a_folder_without_a_split_is_divided_the_same_way_each_time(init, flowers, tmp_path):
    root = flowers({".": (10, 5)})
    assert init(root, "--val-share", "0.2")[0] == 0
    val = sorted(path.relative_to("mine/data").as_posix() for path in Path("mine/data/val").rglob("*.png"))
    assert [path.split("/")[1] for path in val] == ["aster", "aster", "rose"]
    linked = list(Path("mine/data").rglob("*.png"))
    assert len({path.resolve() for path in linked}) == len(linked) == 15
    assert all(path.is_symlink() for path in linked)
    again = layout.divide(root, tmp_path / "again", val_share=0.2)
    assert val == sorted(str(path.relative_to(again.root)) for path in Path(again.root, "val").rglob("*.png"))
    assert composed()["data"]["root"] == str(tmp_path / "mine" / "data")


def test_a_division_without_an_experiment_is_removed_again(init, flowers):
    root = flowers({".": (10, 5)})
    (root / "rose/0.png").write_bytes(b"no")
    code, _, err = init(root, "--val-share", "0.2")
    assert code == 2
    assert "rose/0.png' cannot be decoded" in err
    assert not Path("mine/data").exists()
    assert (root / "aster/0.png").is_file()


def test_nothing_is_overwritten(init, flowers):
    root = flowers()
    init(root)
    before = Path("mine/experiment/flowers.yaml").read_bytes()
    code, _, err = init(root)
    assert (code, err) == (
        2,
        "mvit: DIR: 'mine/experiment/flowers.yaml' already exists; use another --name, or remove it\n",
    )
    assert Path("mine/experiment/flowers.yaml").read_bytes() == before
    assert init(root, "--name", "roses")[0] == 0
    assert composed("roses")["name"] == "roses"


@pytest.mark.parametrize(
    ("splits", "spoil", "line"),
    [
        (None, shutil.rmtree, "does not exist; name the folder that has train and val"),
        ({"train": (2, 2)}, None, "has train, but no folder to validate on (val, valid, validation, test); add one"),
        ({"val": (2, 2)}, None, "has val, but no folder to train on; add one that is called train"),
        ({".": (2, 2)}, None, "has a folder for each class, but no train and val; hold some out with --val-share 0.2"),
        ({"a/train": (2, 2), "a/val": (1, 1)}, None, "has train one folder further down, in a; use --data"),
        ({"train": (2,), "val": (1,)}, None, "has one class, aster; add another one"),
        ({"train": (2,), "val": (1, 1)}, None, "/val' has classes that are not in train: rose; use the same names"),
        (None, lambda root: shutil.rmtree(root / "train/rose") or (root / "train/rose").mkdir(), "has empty class"),
        (None, lambda root: shutil.rmtree(root) or root.mkdir(), "has no images; name the folder"),
        (
            None,
            lambda root: (root / "train/rose/0.png").write_bytes(b"no"),
            "cannot be decoded; remove or repair it, or",
        ),
    ],
)
def test_a_folder_that_cannot_be_used_is_refused_in_one_line(init, flowers, splits, spoil, line):
    root = flowers(splits)
    if spoil:
        spoil(root)
    code, _, err = init(root)
    assert code == 2
    assert err.startswith(f"mvit: --data: '{root}")
    assert line in err
    assert err.count("\n") == 1
    assert not Path("mine").exists()


def test_unreadable_images_are_left_out_on_request(init, flowers):
    root = flowers()
    (root / "train/rose/0.png").write_bytes(b"no")
    code, out, _ = init(root, "--on-unreadable", "skip")
    assert code == 0
    assert "train 14, valid 5 images" in out
    assert composed()["data"]["on_unreadable"] == "skip"


def test_names_that_yaml_and_hydra_would_read_otherwise_are_kept(init, flowers):
    root = flowers()
    root = root.rename(root.with_name('a "${b}" #c'))
    (root / "train/rose").rename(root / "train/ro\nse: 1")
    (root / "valid/rose").rename(root / "valid/ro\nse: 1")
    assert init(root)[0] == 0
    assert composed("a-b-c")["data"]["root"] == str(root)


@pytest.mark.mindspore
def test_the_experiment_trains(init, flowers, tmp_path_factory):
    init(flowers())
    done = launcher(tmp_path_factory)(
        "--config-dir", str(Path("mine").absolute()), "experiment=flowers", *TINY, "train.max_steps=2", "tracking=none"
    )
    assert done.code == 0, done.err
    assert done.result()
