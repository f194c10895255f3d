"""Several runs asked for at once: their folder, their parent run in MLflow, their table."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from mvit.config import MlflowTracking, RunConfig
from mvit.launch import console
from mvit.launch.plan import CHECKOUT
from mvit.launch.supervise import Outcome
from mvit.launch.tracking import close_sweep, open_sweep, problem_of, store_uri


@dataclass
class Sweep:
    """Collects the trials of one command."""

    folder: Path
    tracking: MlflowTracking | None = None
    run_id: str | None = None
    outcomes: list[Outcome] = field(default_factory=list[Outcome])
    rows: list[dict[str, str]] = field(default_factory=list[dict[str, str]])

    def parent_run(self, config: RunConfig) -> str | None:
        """The MLflow run the trials stand under; the first trial opens it."""
        tracking = config.tracking
        if self.tracking or not isinstance(tracking, MlflowTracking):  # asked once: a store that hangs takes a minute
            return self.run_id
        self.tracking = tracking
        uri = store_uri(tracking, CHECKOUT)
        name = f"{config.name}-{self.folder.name}"
        tags = {"mvit.kind": "sweep", "folder": str(self.folder)}
        found: list[str] = []
        problem = problem_of(
            lambda: found.append(open_sweep(self.folder, tracking=tracking, uri=uri, name=name, tags=tags))
        )
        if problem:
            console.complain([problem])
        self.run_id = found[0] if found else None
        return self.run_id

    def add(self, name: str, outcome: Outcome, row: dict[str, str] | None) -> None:
        """Take the end of a trial."""
        self.outcomes.append(outcome)
        if row is not None:
            self.rows.append({"trial": name, **row})

    def close(self) -> None:
        """End the parent run, with the worst status of its trials, and print the finished ones."""
        found = {outcome.status for outcome in self.outcomes}
        status = "KILLED" if "KILLED" in found else "FAILED" if "FAILED" in found or not found else "FINISHED"
        if len(self.rows) > 1:
            console.result_table(self.rows)
        if self.tracking and self.run_id:
            uri = store_uri(self.tracking, CHECKOUT)
            accuracies = [float(row["acc@top1"]) for row in self.rows if row["acc@top1"] != "-"]
            summary = {"best/val_acc1": max(accuracies)} if accuracies else {}
            problem = problem_of(lambda: close_sweep(self.folder, uri=uri, status=status, summary=summary))
            if problem:
                console.complain([problem])
        counts = ", ".join(f"{[o.status for o in self.outcomes].count(kind)} {kind}" for kind in sorted(found))
        console.say(f"mvit: sweep {self.folder}: {counts or 'no trial ran'}")
