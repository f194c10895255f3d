import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mvit.cli import main
from mvit.data import dataset, pack, shard_writer
from mvit.data.generated import write_image_folder
from mvit.data.sample import Blob
from mvit.errors import DatasetError
from mvit.parent.request.check import parse
from tests.conftest import CHECKOUT, open_data, raw_config
from tests.data.test_dataset import make_folder

pytestmark = pytest.mark.mindspore


@pytest.fixture(scope="module")
def packed_once(tmp_path_factory):
    """A small image folder and its shards: three of training, one of validation."""
    room = tmp_path_factory.mktemp("packed")
    source = write_image_folder(room / "source", classes=3, train=13, val=4, size=(60, 40))
    odd = source / "train" / "it's n°3"  # names go through SQL
    (source / "train" / "class_0002").rename(odd)
    (source / "val" / "class_0002").rename(source / "val" / odd.name)
    assert main.main(["pack", str(source), str(room / "out"), "--shards", "3", "--workers", "2"]) == 0
    return source, room / "out"


@pytest.fixture
def packed(packed_once, tmp_path):
    """A copy that a test may spoil."""
    shutil.copytree(packed_once[1], tmp_path / "out")
    return packed_once[0], tmp_path / "out"


def run(source, out, *options):
    return main.main(["pack", str(source), str(out), "--workers", "2", *options])


def data_of(out):
    return parse(raw_config("data=mindrecord", f"data.root={out}")).data


def sources_of(out):
    return open_data(data_of(out))


def stems(out):
    return sorted(path.name for path in out.glob("*.mindrecord"))


def state(out):
    return {path.name: (path.stat().st_mtime_ns, path.stat().st_ino) for path in out.glob("*.mindrecord*")}


def blob_of(source, index):
    sample = source.sample(index)
    assert isinstance(sample, Blob)
    return sample


def bytes_of(blob):
    with Path(blob.path).open("rb") as file:
        file.seek(blob.offset)
        return file.read(blob.length)


def test_shards_hold_the_files_of_the_folder_unchanged_in_the_order_of_the_listing(packed_once):
    source, out = packed_once
    assert stems(out) == [*(f"train-0000{n}.mindrecord" for n in range(3)), "val-00000.mindrecord"]
    assert sorted(path.name for path in out.iterdir() if path.name.startswith(".")) == [".lock"]
    facts = dataset.survey(data_of(out)).facts
    assert (facts.num_train, facts.num_val) == (13, 4)
    assert facts.class_names == ("class_0000", "class_0001", "it's n°3")
    folder = parse(raw_config("data=imagefolder", f"data.root={source}")).data
    for packed, files in zip(sources_of(out), open_data(folder), strict=True):
        assert list(packed.labels) == list(files.labels)
        for index in range(len(files.labels)):
            assert bytes_of(packed.sample(index)) == Path(files.sample(index).name).read_bytes()
            with packed.sample(index).open() as image, files.sample(index).open() as same:
                assert image.tobytes() == same.tobytes()
    assert sources_of(out)[0].sample(12).name == f"{out}/train-00002.mindrecord sample 4"


def test_mindspore_reads_the_same_bytes_by_its_own_reader(packed_once):
    from mindspore.mindrecord import FileReader

    source, out = packed_once
    train, val = sources_of(out)
    for source, prefix in ((train, "train"), (val, "val")):
        index = 0
        for name in stems(out):
            if not name.startswith(prefix):
                continue
            reader = FileReader(str(out / name))
            for row in reader.get_next():
                assert row["data"] == bytes_of(source.sample(index))
                assert row["label"] == source.labels[index]
                assert row["name"].startswith(f"{prefix}/")
                index += 1
            reader.close()
        assert index == len(source.labels)


def test_offsets_are_right_over_many_pages(tmp_path, monkeypatch):
    monkeypatch.setattr(shard_writer, "USUAL_PAGE", 1 << 15)
    source = write_image_folder(tmp_path / "source", classes=2, train=40, val=2, size=(200, 150))
    assert run(source, tmp_path / "out", "--shards", "1") == 0
    train, _ = sources_of(tmp_path / "out")
    assert sum(blob_of(train, i).length for i in range(40)) > 4 << 16
    files = sorted((source / "train").glob("*/*"))
    assert [bytes_of(train.sample(i)) for i in range(40)] == [path.read_bytes() for path in files]


def test_packing_again_verifies_and_writes_nothing(packed, capsys):
    source, out = packed
    before = state(out)
    assert run(source, out, "--shards", "3") == 0
    assert state(out) == before
    assert "17 images in 4 shards, 0.00 GB; counts and sha256 verified" in capsys.readouterr().out


def test_a_shard_that_is_not_finished_is_written_and_the_others_are_not(packed):
    _, out = packed
    before = state(out)
    manifest = json.loads((out / "manifest.json").read_text())
    lost = manifest["train"].pop(1)
    (out / "manifest.json").write_text(json.dumps({**manifest, "complete": False}))
    (out / ".part").mkdir()
    (out / ".part" / lost["file"]).write_bytes(b"half of it")
    with pytest.raises(
        DatasetError, match="is incomplete: packing was interrupted; continue with: python -m mvit pack"
    ) as caught:
        dataset.survey(data_of(out))
    command = str(caught.value).partition("continue with: ")[2]
    assert main.main(shlex.split(command)[3:]) == 0
    after = state(out)
    assert {name for name in after if after[name] != before[name]} == {lost["file"], lost["db"]["file"]}
    assert json.loads((out / "manifest.json").read_text())["train"][1]["count"] == lost["count"]
    assert not (out / ".part").exists()


@pytest.mark.parametrize("ending", [".mindrecord", ".mindrecord.db", ".npy"])
def test_a_file_that_is_missing_or_cut_is_named_and_written_again(packed, ending):
    source, out = packed
    path = out / f"train-00001{ending}"
    size = path.stat().st_size
    os.truncate(path, size - 1)
    line = f"train-00001{ending}' has {size - 1} bytes, expected {size}; repair it with: python -m mvit pack"
    with pytest.raises(DatasetError, match=line):
        dataset.survey(data_of(out))
    path.unlink()
    with pytest.raises(DatasetError, match=f"train-00001{ending}' is missing; repair it with: python -m mvit pack"):
        dataset.survey(data_of(out))
    assert run(source, out, "--shards", "3") == 0
    assert dataset.survey(data_of(out)).facts.num_train == 13


def flip(path, place):
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


def test_a_flipped_byte_is_found_by_packing_again_and_by_reading_the_image(packed, capsys):
    source, out = packed
    before = dataset.survey(data_of(out)).facts
    train, _ = sources_of(out)
    damaged = blob_of(train, 6)
    flip(out / "train-00001.mindrecord", damaged.offset + damaged.length // 2)
    assert dataset.survey(data_of(out)).facts == before  # sizes alone are compared
    with pytest.raises(OSError, match="the packed bytes have changed"):
        train.sample(6).open()
    train.sample(7).open().close()
    assert run(source, out, "--shards", "3") == 1
    assert capsys.readouterr().err.splitlines() == [
        f"mvit: {out}/train-00001.mindrecord is damaged: sha256 mismatch;"
        " it was removed, run the same command to write it again"
    ]
    assert run(source, out, "--shards", "3") == 0
    assert dataset.survey(data_of(out)).facts.num_train == before.num_train
    train.sample(6).open().close()


def test_a_damaged_index_is_refused_when_the_data_is_opened(packed):
    _, out = packed
    flip(out / "train-00001.npy", -1)
    with pytest.raises(
        DatasetError, match="train-00001.npy' is damaged: sha256 mismatch; run the command in manifest.json again"
    ):
        sources_of(out)


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["--shards", "2"], "was packed into a different number of shards; use another directory, or --overwrite"),
        (["--shards", "3", "--on-unreadable", "skip"], "was packed with --on-unreadable refuse; use another"),
    ],
)
def test_shards_made_otherwise_are_refused(packed, capsys, options, line):
    source, out = packed
    before = state(out)
    assert run(source, out, *options) == 2
    assert line in capsys.readouterr().err
    assert state(out) == before


def test_shards_of_other_images_are_replaced_only_with_overwrite(packed, tmp_path, capsys):
    source, out = packed
    other = make_folder(tmp_path / "other")
    assert run(other, out) == 2
    assert capsys.readouterr().err == (
        f"mvit: OUT: '{out}' was packed from different images ({source}); use another directory, or --overwrite\n"
    )
    assert run(other, out, "--overwrite") == 0
    assert stems(out) == ["train-00000.mindrecord", "val-00000.mindrecord"]
    assert dataset.survey(data_of(out)).facts.class_names == ("cat", "dog")


def test_a_folder_of_something_else_is_never_touched(tmp_path, capsys):
    root = make_folder(tmp_path / "data")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("")
    assert run(root, tmp_path / "out", "--overwrite") == 2
    assert "OUT: " in (err := capsys.readouterr().err)
    assert "is not empty and has no manifest.json: it contains thesis.tex; use an empty directory" in err
    assert (tmp_path / "out" / "thesis.tex").exists()


def spoilt_folder(tmp_path):
    root = make_folder(tmp_path / "data", size=(400, 300))
    Image.new("CMYK", (40, 40)).save(root / "train/cat/0.jpg")
    Image.new("L", (40, 40)).save(root / "train/dog/0.jpg")
    whole = (root / "train/cat/1.jpg").read_bytes()
    (root / "train/cat/1.jpg").write_bytes(whole[: len(whole) // 2])
    (root / "train/dog/2.jpg").write_bytes(b"no image")
    return root


def test_unreadable_images_are_refused_by_name(tmp_path, capsys):
    root = spoilt_folder(tmp_path)
    assert run(root, tmp_path / "out") == 2
    assert capsys.readouterr().err.splitlines() == [
        f"mvit: SRC: '{root}/{path}' cannot be decoded; remove or repair it, or use --on-unreadable skip"
        for path in ("train/cat/1.jpg", "train/dog/2.jpg")
    ]
    assert run(root, tmp_path / "out", "--on-unreadable", "skip") == 0


def test_unreadable_images_are_left_out_with_skip(tmp_path, capsys):
    root = spoilt_folder(tmp_path)
    assert run(root, tmp_path / "out", "--on-unreadable", "skip") == 0
    assert "skipped (cannot be decoded): train/dog/2.jpg" in capsys.readouterr().out
    train, val = sources_of(tmp_path / "out")
    assert (list(train.labels), len(val.labels)) == ([0, 0, 1, 1], 6)
    with train.sample(0).open() as image:
        assert image.mode == "CMYK"


def test_a_class_that_skipping_empties_is_refused(tmp_path, capsys):
    root = make_folder(tmp_path / "data")
    for path in (root / "train/dog").iterdir():
        path.write_bytes(b"no image")
    assert run(root, tmp_path / "out", "--on-unreadable", "skip") == 1
    assert "no training image of dog can be decoded; repair one, or remove the class" in capsys.readouterr().err
    with pytest.raises(DatasetError, match="is incomplete: packing was interrupted"):
        dataset.survey(data_of(tmp_path / "out"))


def test_a_wrong_source_is_refused_in_terms_of_the_command_line(tmp_path, capsys):
    assert run(tmp_path / "nothing", tmp_path / "out") == 2
    assert capsys.readouterr().err.startswith(f"mvit: SRC: '{tmp_path}/nothing' does not exist; set")
    root = make_folder(tmp_path / "data")
    assert run(root, tmp_path / "out", "--val-folder", "valid") == 2
    assert capsys.readouterr().err == (
        f"mvit: --val-folder: 'valid' does not exist in {root}; set it to the name of the split's directory\n"
    )
    (root / "train" / "cow").mkdir()
    assert run(root, tmp_path / "out") == 2
    assert "has empty class directories: cow" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_second_packer_is_refused(packed, capsys):
    source, out = packed
    with pack._exclusive(out):
        assert run(source, out, "--shards", "3") == 1
    assert capsys.readouterr().err == f"mvit: {out} is being packed by another process\n"


def test_a_place_that_cannot_be_written_is_one_line(tmp_path, capsys, monkeypatch):
    root = make_folder(tmp_path / "data")
    (tmp_path / "file").write_text("")
    assert run(root, tmp_path / "file" / "out") == 1
    assert capsys.readouterr().err == f"mvit: {tmp_path}/file/out: Not a directory\n"
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    assert run(root, tmp_path / "out") == 1
    assert "out: not enough disk space: 0.0 GB needed, 0.0 GB free" in capsys.readouterr().err


def in_a_process(*arguments, before=""):
    # A shell starts what it puts into the background with Ctrl-C ignored, and so the tests, and so this.
    program = f"{before}\nimport signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    program += "\nimport sys; from mvit.cli.main import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", program, "pack", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=CHECKOUT)


def test_a_disk_that_fills_up_is_one_line_and_leaves_a_folder_that_can_go_on(tmp_path):
    source = write_image_folder(tmp_path / "source", classes=2, train=60, val=4, size=(300, 200), format="png")
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (3 << 20, 3 << 20))"
    process = in_a_process(source, tmp_path / "out", "--shards", 2, before=limit)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 1, err
    assert len(err.splitlines()) == 1, err
    assert err.startswith(f"mvit: {tmp_path}/out/.part/train-00000.mindrecord cannot be written: ")
    assert "Refer to" not in err
    assert not (tmp_path / "out" / ".part").exists()
    assert run(source, tmp_path / "out", "--shards", "2") == 0


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_packing_that_is_stopped_goes_on_where_it_was(tmp_path, number, code):
    source = write_image_folder(tmp_path / "source", classes=2, train=400, val=4, size=(60, 40))
    out = tmp_path / "out"
    process = in_a_process(source, out, "--shards", 200)
    while len(stems(out)) < 3:
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == code, err
    if number == signal.SIGINT:
        assert err == "mvit: stopped; run the same command to continue\n"
    manifest = json.loads((out / "manifest.json").read_text())
    finished = {shard["file"] for shard in manifest["train"]}
    assert 0 < len(finished) < 200
    before = state(out)
    assert run(source, out, "--shards", "200") == 0
    after = state(out)
    assert all(after[name] == before[name] for name in finished)
    train, _ = sources_of(out)
    assert np.bincount(train.labels).tolist() == [200, 200]
