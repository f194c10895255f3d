"""The end of a sweep: its table, what failed first, its run in MLflow, and what to do next."""

from __future__ import annotations

import math
import statistics
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

from mvit import console
from mvit.console import mvit_command, shown
from mvit.errors import first_line
from mvit.parent.report.numbers import number
from mvit.parent.report.row import result_row
from mvit.parent.report.table import TrialResult, sweep_lines
from mvit.parent.sweep.mirror import SweepMirror
from mvit.parent.sweep.outcome import SweepOutcome
from mvit.parent.sweep.pictures import draw_all
from mvit.parent.sweep.trials import Trial
from mvit.parent.tracking.content import seen_with
from mvit.parent.tracking.names import name_of_sweep
from mvit.rundir.ending import EndStatus, record_end
from mvit.rundir.ledger import Ledger, TrialPruned, recorded_request
from mvit.rundir.paths import RunDir
from mvit.rundir.result import read_result
from mvit.rundir.state import sweep_status

MOST_CAUSES = 10
"""Failures that are told; the others are counted."""
CONFIDENCE = 0.95


def close(folder: Path, *, mirror: SweepMirror, pruned: Collection[Trial]) -> None:
    """Record the sweep's end, print the results of its trials and what is left of it.

    `pruned` are those that are paused for good: no other trial is to come.
    """
    with suppress(OSError):  # a full disk: they stay paused, and a resumed sweep prunes them again
        Ledger(folder).append(*(TrialPruned(trial=trial.number) for trial in pruned))
    outcome, status = SweepOutcome(folder), sweep_status(folder)
    end: EndStatus = "KILLED" if status in ("FROZEN", "RUNNING") else status
    _print_table(outcome)
    for line in _causes(outcome):
        console.complain([line])
    record_end(RunDir(folder), end, exit_code=None)
    mirror.close(end, outcome.summary(pictures=_pictures(outcome)))
    counts = ", ".join(f"{count} {word}" for word, count in outcome.counts.items())
    console.say(f"mvit: sweep {end}, {shown(folder)}: {counts}")
    where = seen_with(RunDir(folder), name=name_of_sweep(folder, recorded_request(folder)))
    if where:
        console.say(f"mvit: {where}")
    if end != "FINISHED":
        console.say(f"mvit: continue with: {mvit_command('resume', folder)}")
    elif not where:
        console.say(f"mvit: show its results again with: {mvit_command('table', folder)}")


def _pictures(outcome: SweepOutcome) -> list[Path]:
    """Draw the pictures of the sweep, if there is something to see."""
    try:
        return draw_all(outcome)
    except Exception as error:  # noqa: BLE001  a picture is no reason to lose the end of a sweep
        console.complain([f"cannot draw the sweep: {first_line(error)}"])
        return []


def _print_table(outcome: SweepOutcome) -> None:
    """The finished trials, the best one first and marked; of several seeds, what they say together."""
    others = [one for one in outcome.finished.values() if one not in outcome.order]
    results: list[TrialResult] = []
    for one in [*outcome.order, *others]:
        if one.run and (result := read_result(one.folder)):
            row = result_row(one.run, result)
            results.append(TrialResult(one.trial.folder, one.trial.overrides, row, is_best=one in outcome.best))
    if len(results) > 1:
        for line in sweep_lines(results):
            console.say(line)
    if line := _over_seeds(outcome):
        console.say(f"mvit: {line}")


def _over_seeds(outcome: SweepOutcome) -> str | None:
    """Mean, deviation and confidence interval (Student's t), where the trials differ in their seed alone."""
    if not outcome.is_over_seeds:
        return None
    trials, objective = outcome.order, outcome.objectives[0]
    from scipy import stats  # pyright: ignore[reportMissingTypeStubs, reportUnknownVariableType]

    values, n = [one.values[objective] for one in trials], len(trials)
    mean, deviation = statistics.fmean(values), statistics.stdev(values)
    half = float(cast(Any, stats).t.ppf((1 + CONFIDENCE) / 2, n - 1)) * deviation / math.sqrt(n)
    interval = f"{CONFIDENCE:.0%} confidence interval {mean - half:.2f} to {mean + half:.2f}"
    return f"{n} seeds: {number(objective, mean)} on average, standard deviation {deviation:.2f}, {interval}"


def _causes(outcome: SweepOutcome) -> Iterator[str]:
    """The first cause of each failure."""
    failed = [(one.label, one.failure) for one in outcome.trials if one.failure and one.status in ("FAILED", "KILLED")]
    for label, failure in failed[:MOST_CAUSES]:
        yield f"{label}: {next(iter(failure.lines()))}"
    if len(failed) > MOST_CAUSES:
        yield f"... and {len(failed) - MOST_CAUSES} more"
