"""Several runs asked for at once: their folder, their parent run in MLflow, their table."""

from __future__ import annotations

import socket
from dataclasses import dataclass, field
from pathlib import Path

from mvit import console
from mvit.config import MlflowTracking, RunConfig
from mvit.launch import owner
from mvit.launch.course import shown
from mvit.launch.plan import CHECKOUT
from mvit.launch.store import problem_of, store_uri
from mvit.launch.supervise import Outcome
from mvit.launch.tracking import close_sweep, open_sweep
from mvit.rundir import RunDir


@dataclass
class Sweep:
    """Collects the trials of one command."""

    stamp: str
    folder: Path | None = None
    refused: int = 0
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
        folder.mkdir(parents=True, exist_ok=True)
        owner.claim(RunDir(folder))  # so that the next launch can close what this one leaves
        found: list[str] = []
        problem = problem_of(lambda: found.append(open_sweep(folder, tracking=tracking, uri=uri, name=name, tags=tags)))
        if problem:
            console.complain([problem])
        self.run_id = found[0] if found else None
        return self.run_id

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
        whole = found and set(found) == {"FINISHED"} and not self.refused
        status = "KILLED" if stopped else "FINISHED" if whole else "FAILED"
        if len(self.rows) > 1:
            console.result_table(self.rows)
        if self.tracking:
            owner.record_end(RunDir(self.folder), status, exit_code=None, error=None)
        if self.tracking and self.run_id:
            folder, uri = self.folder, store_uri(self.tracking, CHECKOUT)
            summary = {} if self.best is None else {"best/val_acc1": self.best}
            problem = problem_of(lambda: close_sweep(folder, uri=uri, status=status, summary=summary))
            if problem:
                console.complain([problem])
            owner.record_mirrored(RunDir(folder), mirrored=problem is None)
        counts = [f"{found.count(kind)} {kind}" for kind in sorted(set(found))]
        counts += [f"{self.refused} refused"] if self.refused else []
        console.say(f"mvit: sweep {status}, {shown(self.folder)}: {', '.join(counts)}")
