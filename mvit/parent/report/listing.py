"""The list of runs: a line for each run and each sweep, the newest one last."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from mvit.console import mvit_command
from mvit.parent.report.grid import Grid
from mvit.parent.report.record import Record, SweepRecord

HEADINGS = ("id", "status", "started", "name", "acc@1", "img/s", "note")
NUMBERS = ("acc@1", "img/s")
MAY_GO = ("started", "img/s")


def listing(records: Sequence[Record], *, with_trials: bool) -> Grid:
    """A row for each run; the trials of a sweep are one row, below which they stand `with_trials`."""
    rows: list[Mapping[str, str]] = []
    for sweep, group in itertools.groupby(records, key=lambda record: record.sweep):
        of_group = list(group)
        if sweep:
            rows.append(_sweep_row(sweep, of_group))
        if not sweep or with_trials:
            rows += map(_run_row, of_group)
    return Grid(HEADINGS, rows, NUMBERS, MAY_GO).without_empty_columns()


def next_step(records: Sequence[Record]) -> str | None:
    """The command that a person may want after the list, for the newest run that it applies to."""
    steps = (
        (("KILLED", "PAUSED"), "continue what was stopped with", "resume"),
        (("FROZEN",), "execute what is frozen with", "run"),
        (("FAILED",), "once the cause is fixed, continue with", "resume"),
    )
    single = [record for record in records if not record.sweep and not record.problem]
    for statuses, what, command in steps:
        if record := next((one for one in reversed(single) if one.status in statuses), None):
            return f"{what}: {mvit_command(command, record.id)}"
    return f"show the results with: {mvit_command('table')}" if records else None


def _run_row(record: Record) -> dict[str, str]:
    return {
        "id": record.id,
        "status": record.status,
        "started": record.started,
        "name": record.name,
        "acc@1": _number(record, "{:.2f}", "best/val_acc1", "val/acc1"),
        "img/s": _number(record, "{:.0f}", "perf/images_per_s"),
        "note": record.problem or record.failure,
    }


def _sweep_row(sweep: SweepRecord, trials: Sequence[Record]) -> dict[str, str]:
    counts = Counter(trial.status for trial in trials)
    best = max(trials, key=lambda trial: trial.metrics.get("best/val_acc1", -1.0))
    return {
        "id": sweep.id,
        "status": sweep.status,
        "started": sweep.started,
        "name": sweep.name,
        "acc@1": _number(best, "{:.2f}", "best/val_acc1"),
        "note": f"{len(trials)} trials: {', '.join(f'{count} {status}' for status, count in counts.items())}",
    }


def _number(record: Record, form: str, *keys: str) -> str:
    found: Iterator[float] = (record.metrics[key] for key in keys if key in record.metrics)
    value = next(found, None)
    return "" if value is None else form.format(value)
