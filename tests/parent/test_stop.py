"""A stop after the epoch: which runs have one, and what becomes of the wish when an attempt fails."""

import json
import sys

import pytest

from mvit.cli.main import main
from mvit.parent import execute
from mvit.parent.command import Command
from mvit.parent.slot import Slot
from mvit.parent.stop_request import StopRequest
from mvit.rundir.frozen import read_run
from mvit.rundir.stop import CURRENT_EPOCH, StopReason, write_stop

DIES = """
import os, sys
from pathlib import Path
folder, written = Path(sys.argv[1]), sys.argv[2]
stop, seen = folder / "stop.json", folder / "seen.jsonl"
is_first = not seen.exists()
with seen.open("a") as file:
    print(stop.read_text().replace("\\n", "") if stop.exists() else "null", file=file)
if is_first and written:
    stop.write_text(written)
os.kill(os.getpid(), 9)
"""
"""An attempt: notes what it is to stop for, is told to, and is killed."""


@pytest.mark.parametrize(
    ("until", "written", "expected"),
    [
        (None, {"reason": {"kind": "pause"}, "after_epoch": CURRENT_EPOCH}, [None, CURRENT_EPOCH, CURRENT_EPOCH]),
        (2, {"reason": {"kind": "pause"}, "after_epoch": CURRENT_EPOCH}, [2, CURRENT_EPOCH, CURRENT_EPOCH]),
        (2, None, [2, 2, 2]),
        (2, {"reason": {"kind": "signal", "signal": 2}}, [2, "signal", "signal"]),  # of another node
    ],
)
def test_a_request_to_stop_is_kept_when_the_run_is_restarted(run_folder, monkeypatch, until, written, expected):
    folder = run_folder("a", "tracking=none", "model.kernels=plain", "train.max_restarts=2", "train.epochs=5")
    write_stop(folder, StopReason(kind="pause"), after_epoch=4)  # of an earlier execution, which is over
    argv = (sys.executable, "-c", DIES, str(folder.path), json.dumps(written) if written else "")

    def command(*_, attempt, **__):
        return Command(argv, {}, logs=folder.attempt_logs(attempt), workers=1, port=None)

    monkeypatch.setattr(execute, "make_command", command)
    outcome = execute.execute(
        read_run(folder), slot=Slot(), stop=StopRequest(), observer=execute.Silent(), until_epoch=until
    )
    assert outcome.failure
    assert outcome.failure.kind == "killed"
    seen = [json.loads(line) for line in (folder.path / "seen.jsonl").read_text().splitlines()]
    assert [stop and stop.get("after_epoch", stop["reason"]["kind"]) for stop in seen] == expected


def test_a_stop_after_the_epoch_that_comes_before_the_first_attempt_is_kept(run_folder, monkeypatch):
    folder = run_folder("a", "tracking=none", "model.kernels=plain", "train.max_restarts=0")
    argv = (sys.executable, "-c", DIES, str(folder.path), "")

    def command(*_, attempt, **__):
        assert main(["stop", str(folder.path), "--after", "epoch"]) == 0  # while the parent still prepares
        return Command(argv, {}, logs=folder.attempt_logs(attempt), workers=1, port=None)

    monkeypatch.setattr(execute, "make_command", command)
    execute.execute(read_run(folder), slot=Slot(), stop=StopRequest(), observer=execute.Silent())
    assert json.loads((folder.path / "seen.jsonl").read_text())["after_epoch"] == CURRENT_EPOCH


def test_only_a_training_can_stop_after_the_epoch(run_folder, capsys):
    benchmark = run_folder("benchmark", "task=benchmark")
    assert main(["stop", str(benchmark.path), "--after", "epoch"]) == 2
    assert capsys.readouterr().err == (
        "mvit: --after: 'epoch' is for training, and this is task=benchmark; leave it out\n"
    )
    assert not benchmark.stop.exists()
    for path, after in ((benchmark.path, "step"), (run_folder("training").path, "epoch")):
        assert main(["stop", str(path), "--after", after]) == 2
        assert capsys.readouterr().err.endswith(" is not running: it is FROZEN\n")
