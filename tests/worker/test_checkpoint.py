"""Damaged checkpoints are detected, whole ones are kept."""

import os
import time

import numpy as np
import pytest

from mvit.rundir.checkpoints import Checkpoint, prune, tagged
from mvit.rundir.sidecar import Position
from tests.conftest import sidecar

pytestmark = pytest.mark.mindspore


@pytest.fixture
def checkpoint():
    from mvit.worker import checkpoint

    return checkpoint


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "checkpoints"
    made.mkdir()
    return made


TENSORS = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "steps": np.array(7, np.int32)}


def write(checkpoint, folder, step, tensors=TENSORS):
    written = Checkpoint(folder, step)
    checkpoint.write(written, tensors, sidecar(Position(step=step)))
    return written.tensors


def test_a_checkpoint_comes_back_bit_for_bit(checkpoint, folder):
    write(checkpoint, folder, 10)
    found = checkpoint.load_newest(folder)
    assert found.damaged == ()
    assert {name: value.tobytes() for name, value in found.tensors.items()} == {
        name: value.tobytes() for name, value in TENSORS.items()
    }
    assert checkpoint.load_newest(folder / "nowhere") is None


def flip(path):
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (flip, "is damaged: its sha256 is not the one in"),
        (lambda path: os.truncate(path, 40), "is damaged: its sha256 is not the one in"),
        (lambda path: path.unlink(), "cannot be read: "),
        (lambda path: path.with_suffix(".json").write_text("{"), "cannot be read: "),
        (lambda path: path.with_suffix(".json").write_text("[" * 100_000), "is nested too deeply"),
        (lambda path: path.with_suffix(".json").write_text("[1]"), "cannot be read: "),
    ],
)
def test_a_damaged_one_is_reported_and_the_one_before_it_is_used(checkpoint, folder, damage, words):
    write(checkpoint, folder, 10)
    newest = write(checkpoint, folder, 20)
    damage(newest)
    found = checkpoint.load_newest(folder)
    assert found.sidecar.step == 10
    (line,) = found.damaged
    assert line.startswith(str(newest))
    assert words in line
    damage(folder / "step-00000010.safetensors")
    with pytest.raises(checkpoint.CheckpointError, match="no checkpoint in .* is whole: "):
        checkpoint.load_newest(folder)


def test_weights_that_are_not_finite_are_damage(checkpoint, folder):
    write(checkpoint, folder, 10)
    write(checkpoint, folder, 20, {**TENSORS, "a": np.full((2, 3), np.nan, np.float32)})
    found = checkpoint.load_newest(folder)
    assert found.sidecar.step == 10
    assert found.damaged == (f"{folder}/step-00000020.safetensors: a has values that are not finite",)


@pytest.mark.parametrize(
    ("tensors", "words"),
    [
        ({"a": TENSORS["a"][:, :2].copy()}, r"a has shape \(2, 2\), not \(2, 3\)"),
        ({"a": TENSORS["a"].astype(np.float64)}, "a is float64, not float32"),
        ({}, "lacks a; it belongs to another configuration"),
        ({"a": TENSORS["a"], "b": TENSORS["a"]}, "holds b, which this run does not have"),
        ({"a": TENSORS["a"], "rank1.b": TENSORS["a"]}, "holds rank1.b, which this run does not have"),
    ],
)
def test_tensors_of_another_network_are_refused(checkpoint, tmp_path, tensors, words):
    with pytest.raises(checkpoint.CheckpointError, match=words):
        checkpoint.restore([cell()], tensors, rank=0, source=tmp_path / "x.safetensors")


def test_a_worker_takes_its_own_statistics(checkpoint, tmp_path):
    net = cell()
    own = TENSORS["a"] + 1
    checkpoint.restore([net], {"a": TENSORS["a"], "rank1.a": own}, rank=1, source=tmp_path)
    assert (net.a.asnumpy() == own).all()


def cell():
    import mindspore as ms
    from mindspore import nn

    class One(nn.Cell):
        def __init__(self):
            super().__init__()
            self.a = ms.Parameter(ms.Tensor(np.zeros((2, 3), np.float32)), name="a")

    return One()


def test_the_newest_and_the_best_are_kept(checkpoint, folder):
    scores = {10: 50.0, 20: 90.0, 30: 70.0, 40: 80.0, 50: 60.0}
    for step, score in scores.items():
        write(checkpoint, folder, step)
        written = Checkpoint(folder, step)
        evaluated = sidecar(Position(step=step)).with_evaluation({"val/acc1": score}, best_of="raw", score=score)
        written.write_sidecar(evaluated.with_digest(written.read_sidecar().sha256))
    (folder / ".step-00000060.safetensors.1234").write_bytes(b"half")
    prune(folder, keep_last=2, keep_best=1)
    assert sorted(path.name for path in folder.glob("*.safetensors")) == [
        f"step-{step:08d}.safetensors" for step in (20, 40, 50)
    ]
    assert not list(folder.glob(".*"))


def test_a_writer_reports_what_it_cannot_write_and_goes_on(checkpoint, tmp_path):
    from mvit.worker.checkpoint_writer import Writer

    reports = []
    folder = tmp_path / "checkpoints"
    writer = Writer(folder, keep_last=2, keep_best=1, report=lambda step, reason: reports.append((step, reason)))
    writer.save(sidecar(Position(step=1)), TENSORS)
    while not reports:
        time.sleep(0.01)
    folder.mkdir()
    writer.save(sidecar(Position(step=2)), TENSORS)
    writer.close()
    writer.close()
    assert reports == [(1, "No such file or directory")]
    assert checkpoint.load_newest(folder).sidecar.step == 2


def test_an_evaluation_is_added_to_the_checkpoint_that_it_rates(checkpoint, folder):
    from mvit.worker.checkpoint_writer import Writer

    writer = Writer(folder, keep_last=2, keep_best=1, report=lambda step, reason: pytest.fail(reason))
    writer.save(sidecar(Position(step=3)), TENSORS)
    evaluated = sidecar(Position(step=3)).model_copy(
        update={"progress": Position(step=3).with_evaluation(best={}, final={})}
    )
    writer.evaluated(evaluated.with_evaluation({"val/acc1": 40.0}, best_of="ema", score=40.0), is_best=True)
    writer.close()
    rated = tagged(folder, "best")
    assert rated is not None
    assert rated.step == 3
    assert rated.is_whole()
    assert rated.is_evaluated()
    assert rated.score() == 40.0
    assert rated.read_sidecar().best_of == "ema"
