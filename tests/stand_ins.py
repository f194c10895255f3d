"""Processes that stand for the trials of a sweep: each ends as it is told, with nothing computed."""

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from mvit.config import TrainRun
from mvit.rundir.frozen import Run

SCRIPT = """
import json, os, signal, sys, time
folder, status, code, seconds, until, accuracies = sys.argv[1:]
def end(status, code):
    status, _, kind = status.partition(":")
    error = {"kind": kind, "rank": 0, "stage": "step", "message": "as told", "where": None, "log": None}
    ending = {"status": status, "exit_code": code, "time": time.time(), "mirrored": None}
    ending["error"] = error if kind else None
    with open(folder + "/end.json", "w") as file:
        json.dump(ending, file)
    os._exit(code)
signal.signal(signal.SIGTERM, lambda *_: end("KILLED", 143))
time.sleep(float(seconds))
accuracies = json.loads(accuracies)
with open(folder + "/metrics.jsonl", "a+") as journal:
    journal.seek(0)
    done = len(journal.readlines())
    for epoch, accuracy in list(enumerate(accuracies, 1))[done:int(until) or None]:
        metrics = {"val/acc1": accuracy, "best/val_acc1": max(accuracies[:epoch]), "perf/images_per_s": 100.0}
        print(json.dumps({"time": 0, "step": epoch, "epoch": epoch, "metrics": metrics}), file=journal)
if int(until):
    end("PAUSED", 75)
end(status, int(code))
"""
FINISHED, FAILED = ("FINISHED", 0), ("FAILED:nan", 1)


@dataclass
class StandIns:
    """Takes the place of `execution.command_of`."""

    ends: list[tuple[str, int]] = field(default_factory=list)
    """How the trials end, in the order of their start; FINISHED beyond the list."""
    seconds: float = 0.0
    """What each takes."""
    at_start: Callable[[Run], None] = lambda run: None
    accuracy: Callable[[TrainRun, int], float] | None = None
    """What a trial comes to after an epoch; None where it journals nothing."""
    started: list[Run] = field(default_factory=list)
    slots: list[str] = field(default_factory=list)
    until: list[int | None] = field(default_factory=list)
    overrides: list[list[str]] = field(default_factory=list)

    def __call__(self, run: Run, *, slot: str, until_epoch: int | None, overrides: Sequence[str]) -> list[str]:
        status, code = self.ends[len(self.started)] if len(self.started) < len(self.ends) else FINISHED
        self.started.append(run)
        self.slots.append(slot)
        self.until.append(until_epoch)
        self.overrides.append(list(overrides))
        self.at_start(run)
        accuracies: list[float] = []
        if self.accuracy and isinstance(run.config, TrainRun):
            accuracies = [self.accuracy(run.config, epoch) for epoch in range(1, run.config.train.epochs + 1)]
        numbers = (str(code), str(self.seconds), str(until_epoch or 0), json.dumps(accuracies))
        return [sys.executable, "-S", "-c", SCRIPT, str(run.folder.path), status, *numbers]
