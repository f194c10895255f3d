"""A past run, and where its time went."""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import dataclass

from mvit.plan import LaunchPlan
from mvit.rundir.ending import read_ending
from mvit.rundir.journal import JournalReader
from mvit.rundir.launcher import read_launcher
from mvit.rundir.paths import RunDir
from mvit.rundir.result import Result, TrainResult


@dataclass(frozen=True)
class Times:
    """Seconds of a run of one attempt, from the command to its return, without the graphs."""

    start: float
    """To the first graph."""
    first_step: float
    """From the last graph to the end of the first step, the check of the graphs included; 0 without training."""
    evaluation: float
    """Of one step of an evaluation, with its share of what comes with it: a checkpoint, waiting, the first batches.

    Where nothing is trained, of one step of the task.
    """
    end: float
    """From the last evaluation, or the task's numbers, to the return of the command."""


@dataclass(frozen=True)
class PastRun:
    """A finished run."""

    result: Result
    times: Times | None = None
    """None where its folder does not tell."""

    @property
    def cached(self) -> bool:
        """Whether its graphs were loaded."""
        return bool(self.result.metrics.get("perf/compile_cached"))


def num_evaluations(plan: LaunchPlan, *, every_epochs: int) -> int:
    """How many evaluations a training has."""
    epochs = math.ceil(plan.last_step / plan.steps_per_epoch)
    return math.ceil(epochs / every_epochs)  # the last epoch is always evaluated


def times_of(folder: RunDir, result: Result, *, eval_steps: int) -> Times | None:
    """Where its time went, by its journal; `eval_steps` are those of all its evaluations."""
    ending, began = read_ending(folder), _began(folder)
    if ending is None or began is None or len(list(folder.logs.glob("attempt-*"))) > 1:
        return None
    compiling = compiled = first = evaluated = None
    for entry in JournalReader(folder.journal).entries():
        time, metrics = entry.get("time"), entry.get("metrics", {})
        if not isinstance(time, float):
            continue
        if entry.get("event") == "compiled":
            compiled = time
            compiling = time - float(entry["seconds"]) if compiling is None else compiling
        elif "perf/first_step_s" in metrics:
            first = time
        elif "val/acc1" in metrics or (metrics and not isinstance(result, TrainResult)):
            evaluated = time
    if compiling is None or compiled is None or evaluated is None:
        return None
    steps_s = 0.0
    if isinstance(result, TrainResult):
        if first is None or "perf/step_ms" not in result.metrics:
            return None
        steps_s = (result.steps - 1) * result.metrics["perf/step_ms"] / 1e3
    return Times(
        start=compiling - began,
        first_step=0.0 if first is None else first - compiled,
        evaluation=max(0.0, evaluated - (compiled if first is None else first) - steps_s) / eval_steps,
        end=(ending.left or ending.time) - evaluated,
    )


def _began(folder: RunDir) -> float | None:
    """When the command began; of runs whose launcher did not say, when it had prepared them."""
    launcher = read_launcher(folder)
    if launcher is None or launcher.began is not None:
        return launcher and launcher.began
    with suppress(OSError):
        return folder.launcher.stat().st_mtime
    return None
