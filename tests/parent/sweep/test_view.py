"""What a person sees of a sweep while it runs."""

import io
import json
from types import SimpleNamespace

import pytest
from rich.console import Console

from mvit.parent.report.table import Label
from mvit.parent.sweep import view
from mvit.parent.sweep.trials import Trial
from mvit.parent.sweep.view import SweepView
from mvit.rundir.ending import Failure, Outcome
from mvit.rundir.paths import RunDir

OBJECTIVES = ("best/val_acc1",)


@pytest.fixture
def run(tmp_path):
    """A run that is at step 12 of 40."""
    metrics = {"train/loss": 0.51234, "val/acc1": 91.5, "perf/images_per_s": 310.7}
    (tmp_path / "metrics.jsonl").write_text(json.dumps({"step": 12, "metrics": metrics}) + "\n")
    task = SimpleNamespace(kind="train")
    plan = SimpleNamespace(last_step=40, steps_per_epoch=10)
    return SimpleNamespace(folder=RunDir(tmp_path), plan=plan, config=SimpleNamespace(task=task))


def trials(run, labels):
    return [Trial(number, Label((tuple(label.split("=")),)), run) for number, label in enumerate(labels)]


def shown(of):
    out = io.StringIO()
    Console(file=out, width=100).print(of.table())
    return [line.rstrip() for line in out.getvalue().splitlines()]


def test_those_that_run_come_first_and_at_most_five_of_a_state(run, capsys):
    given = trials(run, [f"lr={number}" for number in range(9)])
    sweep = SweepView(given, slots=2, objectives=OBJECTIVES)
    sweep.started(given[3], where=" in slot 1")
    sweep.look()
    for trial in given[:2]:
        sweep.started(trial, where="")
    sweep.ended(given[0], Outcome("FAILED", 1, Failure("nan", 0, "step", "nan")), values={})
    sweep.ended(given[1], Outcome("FINISHED", 0), values={"best/val_acc1": 98.765})
    lines = shown(sweep)
    assert lines[:2] == ["1 RUNNING, 1 FAILED, 1 FINISHED, 6 waiting; 2 slots", "best: lr=1, best 98.77 %"]
    assert lines[2].split() == ["lr", "state", "epoch", "loss", "acc@1", "img/s", "left"]
    assert lines[3].split() == ["3", "RUNNING", "1.2/4", "0.512", "91.50", "311"]
    assert lines[4].split() == ["0", "FAILED", "1.2/4", "0.512", "91.50", "311"]
    assert lines[5].split()[:2] == ["1", "FINISHED"]
    assert [line.split()[0] for line in lines[6:11]] == ["2", "4", "5", "6", "7"]
    assert lines[11].split() == ["...", "1", "more", "waiting"]
    out = capsys.readouterr().out.splitlines()
    assert out[0].startswith("mvit: lr=3: started in slot 1, ")
    assert out[-2:] == ["mvit: lr=0: FAILED: nan", "mvit: lr=1: FINISHED, best 98.77 %"]


def test_without_a_terminal_there_is_a_plain_line_of_each_trial_that_runs(run, capsys, monkeypatch):
    monkeypatch.setattr(view, "PLAIN_EVERY_S", 0.0)
    given = trials(run, ["seed=1", "seed=2"])
    with SweepView(given, slots=1, objectives=OBJECTIVES) as sweep:
        sweep.started(given[1], where="", until_epoch=3)
        sweep.look()
    told, line = capsys.readouterr().out.splitlines()
    assert told.startswith("mvit: seed=2: started to epoch 3, ")
    assert line == "  seed=2: epoch 1.2/3  loss 0.512  acc@1 91.50  img/s 311"


def test_swept_keys_are_columns_and_what_lacks_one_has_an_empty_cell(run):
    labels = [Label((("lr", "1e-3"), ("betas", "[a,0.9]"))), Label((("lr", "3e-3"),)), Label(otherwise="trial-2")]
    given = [Trial(number, label, run) for number, label in enumerate(labels)]
    lines = shown(SweepView(given, slots=2, objectives=OBJECTIVES))
    assert lines[1].split()[:3] == ["lr", "betas", "state"]
    cells = [line.split()[:-1] for line in lines[2:]]
    assert cells == [["1e-3", "[a,0.9]"], ["3e-3"], ["trial-2"]]
