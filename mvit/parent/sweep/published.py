"""What is published of a sweep: its trials that came to their end, ranked, and the picture that says most of them."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timezone
from pathlib import Path

from mvit.errors import RunDirError
from mvit.parent.report.admissible import verdict
from mvit.parent.report.publication import PublishedSweep, PublishedTrial, commit_of, machine_of
from mvit.parent.report.record import read_records
from mvit.parent.sweep.outcome import SweepOutcome
from mvit.program import MVIT
from mvit.rundir.sweep import short_id

PICTURES = ("pareto_front", "parallel_coordinates", "history")
"""The first one that the sweep has is published."""
SPEEDS = ("perf/images_per_s", "perf/step_ms")


def published_sweep(folder: Path) -> tuple[PublishedSweep, Path | None]:
    """The sweep, and its picture.

    Where the speed of a trial may not be believed, trials are compared by the other objectives, without a picture.
    Raises `RunDirError` for a sweep without a result or an objective that is left, or whose results may not be
    believed.
    """
    outcome = SweepOutcome(folder)
    verdicts = {
        record.folder.path: verdict(record)
        for record in read_records([one.folder.path for one in outcome.finished.values()])
    }
    if refused := [path for path, found in verdicts.items() if found == "no"]:
        raise RunDirError(f"{short_id(refused[0])} may not be believed; {MVIT} check says why")
    picture = next((path for name in PICTURES if (path := folder / f"{name}.png").exists()), None)
    if "not the speed" in verdicts.values() and any(one in SPEEDS for one in outcome.objectives):
        outcome.objectives = tuple(one for one in outcome.objectives if one not in SPEEDS)
        picture = None
    if not outcome.objectives or not outcome.order:
        raise RunDirError(f"{folder} has no trial with a result that may be believed")
    best = {one.number for one in outcome.best}
    runs = [one.run for one in outcome.order if one.run]
    sweep = PublishedSweep(
        recipe=runs[0].config.name,
        objectives=list(outcome.objectives),
        counts=dict(outcome.counts),
        trials=[
            PublishedTrial(
                label=str(one.label),
                values={objective: one.values[objective] for objective in outcome.objectives},
                is_best=one.number in best,
                run=short_id(one.folder.path),
            )
            for one in outcome.order
        ],
        run=short_id(folder),
        commit=_listed(map(commit_of, runs)),
        host=_listed(machine_of(run) for run in runs),
        date=datetime.now(timezone.utc).strftime("%Y-%m-%d"),
    )
    return sweep, picture


def _listed(words: Iterable[str]) -> str:
    """Each of them once."""
    return " and ".join(dict.fromkeys(words))
