"""What a run came to: the values of the objectives that a sweep compares its trials by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mvit.rundir.frozen import Run
from mvit.rundir.journal import JournalReader
from mvit.rundir.result import read_result
from mvit.sweep_config import Objective


def values_of(run: Run, objectives: Sequence[Objective], *, epoch: int | None = None) -> dict[str, float]:
    """The objectives that the run has logged, after the evaluation of an epoch, or last of all.

    Nothing where it has not come so far.
    """
    latest: dict[str, Any] = {}
    seen = epoch is None
    for entry in JournalReader(run.folder.journal).entries() if run.folder.journal.exists() else ():
        if epoch is not None and entry.get("epoch", 0) > epoch:
            break
        latest.update(entry.get("metrics", {}))
        seen = seen or (entry.get("epoch") == epoch and "val/acc1" in entry.get("metrics", {}))
    if epoch is None and (result := read_result(run.folder)):
        latest |= result.metrics
    if not seen or not latest:
        return {}
    latest = with_best(latest)
    found = {one: run.plan.parameters if one == "params" else latest.get(one) for one in objectives}
    return {one: float(value) for one, value in found.items() if value is not None}


def with_best(metrics: Mapping[str, float]) -> dict[str, float]:
    """The metrics with a best accuracy, which of an evaluation is its only one; a prediction, for one, has none."""
    made = dict(metrics)
    if "val/acc1" in made:
        made.setdefault("best/val_acc1", made["val/acc1"])
    return made
