"""The sidecar of a checkpoint, and the position in it."""

import json

import pytest

from mvit.rundir.sidecar import Position, read_sidecar, write_sidecar
from tests.conftest import sidecar


def test_a_position_comes_back_to_the_bit(tmp_path):
    at = Position().advanced().with_losses([(1, 0.1 + 0.2, 8), (2, 1e-310, 8)], last=2 / 3).with_first_step(0.7)
    at = at.with_averages().with_evaluation(best={"best/val_acc1": 100 / 3, "best/epoch": 1}, final={"val/loss": 0.1})
    path = tmp_path / "step-00000001.json"
    write_sidecar(path, sidecar(at))
    found = read_sidecar(path)
    assert found == sidecar(at)
    assert found.progress.window == [(1, 0.30000000000000004, 8), (2, 1e-310, 8)]
    assert isinstance(found.progress.best["best/epoch"], int)


def test_what_an_evaluation_adds_is_absent_before(tmp_path):
    path = tmp_path / "step-00000000.json"
    write_sidecar(path, sidecar(Position()).with_digest("cd"))
    before = json.loads(path.read_text())
    assert list(before) == ["step", "epoch", "run", "progress", "conventions", "sha256", "digest"]
    write_sidecar(path, read_sidecar(path).with_evaluation({"val/acc1": 10.0}, best_of="ema", score=10.0))
    after = json.loads(path.read_text())
    assert set(after) - set(before) == {"metrics", "best_of", "score"}
    assert read_sidecar(path).sha256 == "cd"


@pytest.mark.parametrize("change", [{"step": 7}, {"sha256": "ef"}, {"colour": "red"}])
def test_an_edited_sidecar_is_refused(tmp_path, change):
    path = tmp_path / "step-00000000.json"
    write_sidecar(path, sidecar(Position()).with_digest("cd"))
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(ValueError, match="its digest does not match"):
        read_sidecar(path)


def test_a_step_leaves_the_evaluation_and_the_averages_behind():
    at = Position(step=9).with_averages().with_evaluation(best={}, final={"val/loss": 1.0})
    after = at.advanced()
    assert (after.step, after.averaged, after.evaluated) == (10, False, False)
    assert after.final == at.final
    assert at.evaluated  # a position never changes


@pytest.mark.parametrize(
    ("step", "evaluated", "epoch"), [(0, False, 1), (1, False, 1), (10, False, 1), (10, True, 2), (11, False, 2)]
)
def test_a_run_continues_with_the_evaluation_that_is_due_or_the_next_step(step, evaluated, epoch):
    assert Position(step=step, evaluated=evaluated).epoch(10) == epoch
