"""Several runs asked for at once: their folder, their parent run in MLflow, their table."""

from __future__ import annotations

import shlex
import socket
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from mvit import console
from mvit.config import MlflowTracking, RunConfig
from mvit.files import read_mapping, write_json
from mvit.parent.execute import shown
from mvit.parent.host import CHECKOUT
from mvit.parent.tracking.store import problem_of, store_uri
from mvit.parent.tracking.sweep_run import close_sweep, open_sweep
from mvit.rundir import ownership
from mvit.rundir.ending import Outcome, record_end, record_mirrored
from mvit.rundir.paths import RunDir, writable

SWEEP = "sweep.json"
"""What was asked for, and the folder of each trial."""
MOST_SHOWN = 20
"""Commands; the file has all."""


@dataclass(frozen=True)
class Trial:
    """One of the runs that were asked for: what a person would type for it alone, and what became of it."""

    overrides: tuple[str, ...]
    folder: str | None = None
    refused: bool = False

    def command(self) -> str:
        """What begins it, as a run of its own."""
        return shlex.join(["python", "launch.py", *self.overrides])


def never_begun(folder: Path) -> list[Trial]:
    """The trials of the sweep's folder that have none."""
    said = (read_mapping(folder / SWEEP) or {}).get("trials", [])
    with suppress(TypeError, KeyError):
        return _left([Trial(tuple(trial["overrides"]), trial["folder"], trial["refused"]) for trial in said])
    return []


def _left(trials: list[Trial]) -> list[Trial]:
    return [trial for trial in trials if trial.folder is None and not trial.refused]


def say_never_begun(trials: list[Trial]) -> None:
    """What begins those that were not, one by one."""
    if trials:
        console.say(f"mvit: {len(trials)} {'trial was' if len(trials) == 1 else 'trials were'} not begun:")
    for trial in trials[:MOST_SHOWN]:
        console.say(f"  {trial.command()}")
    if len(trials) > MOST_SHOWN:
        console.say(f"  and {len(trials) - MOST_SHOWN} more, in {SWEEP}")


@dataclass
class Sweep:
    """Collects the trials of one command."""

    stamp: str
    folder: Path | None = None
    trials: list[Trial] = field(default_factory=list[Trial])
    at: int = 0
    """The place of the present one in `trials`."""
    best: float | None = None
    tracking: MlflowTracking | None = None
    run_id: str | None = None
    outcomes: list[Outcome] = field(default_factory=list[Outcome])
    rows: list[dict[str, str]] = field(default_factory=list[dict[str, str]])

    def place(self, config: RunConfig) -> Path:
        """The folder of the sweep; the first trial that is accepted says where."""
        if self.folder is None:
            self.folder = CHECKOUT / config.runs_dir / config.name / self.stamp
        return self.folder

    def parent_run(self, config: RunConfig) -> str | None:
        """The MLflow run the trials stand under; the first trial opens it."""
        tracking = config.tracking
        if self.tracking or not isinstance(tracking, MlflowTracking):  # asked once: a store that hangs takes a minute
            return self.run_id
        self.tracking = tracking
        folder = self.place(config)
        uri = store_uri(tracking, CHECKOUT)
        name = f"{config.name}-{folder.name}"
        tags = {"mvit.kind": "sweep", "folder": str(folder), "host": socket.gethostname()}
        with writable(folder):
            folder.mkdir(parents=True, exist_ok=True)
        ownership.claim(RunDir(folder))  # so that the next launch can close what this one leaves
        found: list[str] = []
        problem = problem_of(lambda: found.append(open_sweep(folder, tracking=tracking, uri=uri, name=name, tags=tags)))
        if problem:
            console.complain([problem])
        self.run_id = found[0] if found else None
        return self.run_id

    def begun(self, name: str) -> None:
        """The present trial has a folder, and the sweep one to say so in."""
        self._note(folder=name)

    def refuse(self) -> None:
        """The present trial is a wrong request."""
        self._note(refused=True)

    def _note(self, **said: str | bool) -> None:
        if self.at < len(self.trials):
            self.trials[self.at] = replace(self.trials[self.at], **said)
        if self.folder is not None and self.folder.exists():
            with suppress(OSError):  # on a full disk nothing is written, and nothing stops for it
                write_json(self.folder / SWEEP, {"trials": [vars(trial) for trial in self.trials]})

    @property
    def refused(self) -> int:
        """How many were wrong requests."""
        return sum(trial.refused for trial in self.trials)

    def add(self, name: str, outcome: Outcome, row: dict[str, str] | None, *, best: float | None) -> None:
        """Take the end of a trial; `best` is its best top-1, percent."""
        self.outcomes.append(outcome)
        if row is not None:
            self.rows.append({"trial": name, **row})
        if best is not None:
            self.best = max(best, self.best or 0.0)

    def close(self, *, stopped: bool) -> None:
        """End the parent run, with the worst status of its trials, and print the finished ones."""
        if self.folder is None or not (self.outcomes or self.refused or stopped):
            return  # plans alone, for dry_run
        found = [outcome.status for outcome in self.outcomes]
        left = _left(self.trials) if found else []
        whole = found and set(found) == {"FINISHED"} and not self.refused and not left
        status = "KILLED" if stopped else "FINISHED" if whole else "FAILED"
        if len(self.rows) > 1:
            console.result_table(self.rows)
        if self.tracking:
            record_end(RunDir(self.folder), status, exit_code=None, error=None)
        if self.tracking and self.run_id:
            folder, uri = self.folder, store_uri(self.tracking, CHECKOUT)
            summary = {} if self.best is None else {"best/val_acc1": self.best}
            problem = problem_of(lambda: close_sweep(folder, uri=uri, status=status, summary=summary))
            if problem:
                console.complain([problem])
            record_mirrored(RunDir(folder), mirrored=problem is None)
        counts = [f"{found.count(kind)} {kind}" for kind in sorted(set(found))]
        counts += [f"{self.refused} refused"] if self.refused else []
        console.say(f"mvit: sweep {status}, {shown(self.folder)}: {', '.join(counts)}")
        if status == "KILLED" and found:
            console.say(f"mvit: continue what was begun with: python -m mvit resume {shown(self.folder)}")
        say_never_begun(left)
