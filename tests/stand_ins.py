"""Processes that stand for the trials of a sweep: each ends as it is told, with nothing computed."""

import sys
from collections.abc import Callable
from dataclasses import dataclass, field

from mvit.rundir.frozen import Run

SCRIPT = """
import json, os, signal, sys, time
folder, status, code, seconds = sys.argv[1:]
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
end(status, int(code))
"""
FINISHED, FAILED = ("FINISHED", 0), ("FAILED:nan", 1)


@dataclass
class StandIns:
    """Takes the place of `schedule.command_of`."""

    ends: list[tuple[str, int]] = field(default_factory=list)
    """How the trials end, in the order of their start; FINISHED beyond the list."""
    seconds: float = 0.0
    """What each takes."""
    at_start: Callable[[Run], None] = lambda run: None
    started: list[Run] = field(default_factory=list)
    slots: list[str] = field(default_factory=list)
    until: list[int | None] = field(default_factory=list)

    def __call__(self, run: Run, *, slot: str, until_epoch: int | None) -> list[str]:
        status, code = self.ends[len(self.started)] if len(self.started) < len(self.ends) else FINISHED
        self.started.append(run)
        self.slots.append(slot)
        self.until.append(until_epoch)
        self.at_start(run)
        return [sys.executable, "-S", "-c", SCRIPT, str(run.folder.path), status, str(code), str(self.seconds)]
