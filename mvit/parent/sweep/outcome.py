"""What became of a sweep: its trials as they are, ranked, and what MLflow is told of them."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import get_args

from mvit.errors import RunDirError
from mvit.parent.report.table import Label, labels_of
from mvit.parent.sweep.ranking import Values, pareto_front, ranked
from mvit.parent.tracking.sweep_run import SweepSummary
from mvit.rundir.ending import Failure, read_ending
from mvit.rundir.frozen import Run, read_run
from mvit.rundir.ledger import TrialFrozen, recorded_request
from mvit.rundir.objectives import values_of
from mvit.rundir.paths import RunDir
from mvit.rundir.result import read_result
from mvit.rundir.state import Status, run_status
from mvit.rundir.sweep import not_drawn, pruned_trials, read_trials
from mvit.sweep_config import RISES, Objective

WORDS = ("FINISHED", "FAILED", "KILLED", "pruned", "not started")
"""What MLflow always has a number of."""
OF_THE_BEST = ("best/val_acc1", "val/acc1", "val/acc5", "perf/images_per_s", "perf/step_ms", "perf/compile_s")
"""Metrics of its best trial that a sweep has too, so that it stands beside single runs."""
DEFAULT: tuple[Objective, ...] = ("best/val_acc1",)
"""Where the ledger does not say what trials are compared by."""


@dataclass(frozen=True)
class TrialOutcome:
    """What a trial has come to."""

    trial: TrialFrozen
    label: Label
    folder: RunDir
    run: Run | None
    """None where its folder is damaged."""
    status: Status
    failure: Failure | None
    values: Values
    is_pruned: bool

    @property
    def number(self) -> int:
        return self.trial.trial

    @property
    def word(self) -> str:
        """Its status for a person."""
        return "pruned" if self.is_pruned else "not started" if self.status == "FROZEN" else self.status


class SweepOutcome:
    """The trials of a sweep, in their order."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        requested = recorded_request(folder)
        self.objectives: tuple[Objective, ...] = requested.sweep.objectives if requested else DEFAULT
        self.trials = tuple(self._trials())

    def _trials(self) -> Iterator[TrialOutcome]:
        frozen, pruned = read_trials(self.folder), pruned_trials(self.folder)
        for trial, label in zip(frozen, labels_of([one.overrides for one in frozen]), strict=True):
            run_dir = RunDir(self.folder / trial.folder)
            run = None
            with suppress(RunDirError):
                run = read_run(run_dir)
            status, ending = run_status(run_dir), read_ending(run_dir)
            values = values_of(run, self.objectives) if run and status in ("FINISHED", "PAUSED") else {}
            failure = ending.error if ending else None
            is_pruned = status == "PAUSED" and trial.trial in pruned
            yield TrialOutcome(trial, label, run_dir, run, status, failure, values, is_pruned)

    @cached_property
    def finished(self) -> dict[int, TrialOutcome]:
        """Those that have come to their end, by number."""
        return {one.number: one for one in self.trials if one.status == "FINISHED"}

    @cached_property
    def order(self) -> list[TrialOutcome]:
        """Those that have come to their end, the best one first; those without the objectives are left out."""
        values = {number: one.values for number, one in self.finished.items()}
        return [self.finished[number] for number in ranked(values, self.objectives)]

    @cached_property
    def best(self) -> list[TrialOutcome]:
        """The best one; with several objectives, the Pareto front."""
        if len(self.objectives) == 1:
            return self.order[:1]
        front = pareto_front({one.number: one.values for one in self.order}, self.objectives)
        return [self.finished[number] for number in front]

    @cached_property
    def is_over_seeds(self) -> bool:
        """Whether those that have come to their end differ in their seed alone, and in that."""
        typed = [one.trial.overrides for one in self.order]
        varied = {text for texts in typed for text in texts if any(text not in others for others in typed)}
        return {text.partition("=")[0].lstrip("+") for text in varied} == {"seed"}

    @property
    def counts(self) -> Mapping[str, int]:
        """How many trials there are of each status."""
        words = [one.word for one in self.trials]
        left = not_drawn(self.folder)
        return {word: words.count(word) for word in sorted(set(words))} | ({"not drawn": left} if left else {})

    def summary(self, *, pictures: Sequence[Path] = ()) -> SweepSummary:
        """What MLflow is told."""
        result = read_result(self.best[0].folder) if self.order else None
        metrics = {key: result.metrics[key] for key in OF_THE_BEST if key in result.metrics} if result else {}
        for objective in self.objectives if self.order else ():
            values = [one.values[objective] for one in self.order]
            metrics[_name_of_best(objective)] = max(values) if objective in RISES else min(values)
            if self.is_over_seeds:
                metrics |= {f"{objective}_mean": statistics.fmean(values), f"{objective}_n": float(len(values))}
                metrics[f"{objective}_std"] = statistics.stdev(values)
        for word in (*WORDS, *self.counts):  # zeros replace what an earlier end has said
            metrics[f"trials/{word.lower().replace(' ', '_')}"] = float(self.counts.get(word, 0))
        tags: dict[Path, Mapping[str, str]] = {
            one.folder.path: {"rank": str(rank)} for rank, one in enumerate(self.order, 1)
        }
        once = pruned_trials(self.folder)
        for one in self.trials:
            if one.number in once:
                tags[one.folder.path] = {**tags.get(one.folder.path, {}), "pruned": str(one.is_pruned).lower()}
        return SweepSummary(metrics=metrics, tags=tags, pictures=pictures)


def _name_of_best(objective: Objective) -> str:
    """The metric that has the best value of an objective, as `best/val_loss`, but none that is of something else."""
    if objective.startswith("best/"):
        return objective
    name = f"best/{objective.replace('/', '_')}"
    return f"best/{objective}" if name in get_args(Objective) else name
