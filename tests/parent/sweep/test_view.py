"""What a person sees of a sweep while it runs."""

import io
import json
from types import SimpleNamespace

import pytest
from rich.console import Console

from mvit.parent.sweep import view
from mvit.parent.sweep.view import SweepView
from mvit.rundir.paths import RunDir


@pytest.fixture
def run(tmp_path):
    """A run that is at step 12 of 40."""
    metrics = {"train/loss": 0.51234, "val/acc1": 91.5, "perf/images_per_s": 310.7}
    (tmp_path / "metrics.jsonl").write_text(json.dumps({"step": 12, "metrics": metrics}) + "\n")
    task = SimpleNamespace(kind="train")
    return SimpleNamespace(
        folder=RunDir(tmp_path), plan=SimpleNamespace(last_step=40), config=SimpleNamespace(task=task)
    )


def shown(of):
    out = io.StringIO()
    Console(file=out, width=100).print(of.table())
    return [line.rstrip() for line in out.getvalue().splitlines()]


def test_those_that_run_come_first_and_at_most_five_of_a_state(run, capsys):
    sweep = SweepView({number: f"lr={number}" for number in range(9)})
    sweep.started(3, run, where=" in slot 1")
    sweep.look()
    sweep.started(0, run, where="")
    sweep.ended(0, "FAILED", note=": nan")
    lines = shown(sweep)
    assert lines[0] == "1 RUNNING, 1 FAILED, 7 waiting"
    assert lines[1].split() == ["trial", "state", "step", "loss", "acc@1", "img/s"]
    assert lines[2].split() == ["lr=3", "RUNNING", "12/40", "0.512", "91.50", "311"]
    assert lines[3].split() == ["lr=0", "FAILED", "12/40", "0.512", "91.50", "311"]
    assert [line.split()[0] for line in lines[4:9]] == ["lr=1", "lr=2", "lr=4", "lr=5", "lr=6"]
    assert lines[9].split() == ["...", "and", "2", "more", "waiting"]
    out = capsys.readouterr().out
    assert out.startswith("mvit: lr=3: started in slot 1, ")
    assert out.endswith("mvit: lr=0: FAILED: nan\n")


def test_without_a_terminal_there_is_a_plain_line_of_each_trial_that_runs(run, capsys, monkeypatch):
    monkeypatch.setattr(view, "PLAIN_EVERY_S", 0.0)
    with SweepView({0: "seed=1", 1: "seed=2"}) as sweep:
        sweep.started(1, run, where="")
        sweep.look()
    assert capsys.readouterr().out.splitlines()[1:] == ["  seed=2: step 12/40  loss 0.512  acc@1 91.50  img/s 311"]
