"""What is published of a sweep: its trials that came to their end, ranked, and the picture that says most of them."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path

from mvit.errors import RunDirError
from mvit.files import read_mapping
from mvit.parent.report.admissible import verdict
from mvit.parent.report.publication import PublishedSweep, PublishedTrial, machine_of
from mvit.parent.report.record import read_records
from mvit.parent.sweep.outcome import SweepOutcome
from mvit.rundir.sweep import short_id

PICTURES = ("pareto_front", "parallel_coordinates", "history")
"""The first one that the sweep has is published."""


def published_sweep(folder: Path) -> tuple[PublishedSweep, Path | None]:
    """The sweep, and its picture. Raises `RunDirError` for one without a result, or whose results may not be believed.

    Speeds are left out of the objectives where a trial's may not be believed.
    """
    outcome = SweepOutcome(folder)
    if not outcome.order:
        raise RunDirError(f"{folder} has no trial with a result")
    records = {record.folder.path: record for record in read_records([one.folder.path for one in outcome.order])}
    verdicts = {one.number: verdict(records[one.folder.path]) for one in outcome.order}
    if refused := [one for one in outcome.order if verdicts[one.number] == "no"]:
        raise RunDirError(f"{short_id(refused[0].folder.path)} may not be believed; python -m mvit check says why")
    best = {one.number for one in outcome.best}
    trials = [
        PublishedTrial(
            label=str(one.label),
            values=dict(one.values),
            is_best=one.number in best,
            has_speed=verdicts[one.number] == "yes",
            run=short_id(one.folder.path),
        )
        for one in outcome.order
    ]
    first = outcome.order[0].run
    assert first  # it has a result
    made_of = read_mapping(first.folder.provenance) or {}
    sweep = PublishedSweep(
        recipe=first.config.name,
        objectives=list(outcome.objectives),
        counts=dict(outcome.counts),
        trials=trials,
        run=short_id(folder),
        commit=str(made_of.get("commit") or "unknown"),
        host=machine_of(first),
        date=datetime.now(timezone.utc).strftime("%Y-%m-%d"),
    )
    pictures = (folder / f"{name}.png" for name in PICTURES)
    return sweep, next((path for path in pictures if path.exists()), None)
