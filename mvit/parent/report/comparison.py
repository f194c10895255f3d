"""Comparison of our runs with published numbers."""

from __future__ import annotations

from collections.abc import Sequence

from mvit.parent.report.accuracy import scores_of
from mvit.parent.report.grid import Grid
from mvit.parent.report.published import Published, Quantity, Tolerance, read_published
from mvit.parent.report.results import Job
from mvit.plan import LaunchPlan

HEADINGS = ("experiment", "source", "quantity", "published", "measured", "difference", "within", "run")
NUMBERS = ("published", "measured", "difference")
MAY_GO = ("within", "source", "run")
ASCEND = ("Ascend", "Atlas")
"""What the names of Ascend hardware begin with."""


def compared(jobs: Sequence[Job]) -> Grid:
    """A row for each number of the published results and each of our jobs that repeats it; or one if none does."""
    rows: list[dict[str, str]] = []
    numbers = read_published()
    for one in numbers.results:
        if one.recipe is None:  # nothing of ours repeats it
            continue
        for job in [job for job in jobs if job.run.config.name == one.recipe] or [None]:
            cards = job.run.plan.world_size if job else 1
            scores = scores_of([job.metrics] if job else [])
            rows += [_row(one, quantity, job, numbers.tolerance) for quantity in one.quantities(cards, scores)]
    return Grid(HEADINGS, rows, NUMBERS, MAY_GO)


def _row(one: Published, quantity: Quantity, job: Job | None, tolerance: Tolerance) -> dict[str, str]:
    assert quantity.value is not None
    row = {
        "experiment": one.recipe or "",
        "source": one.source,
        "quantity": quantity.name,
        "published": f"{quantity.value:.{quantity.digits}f}",
        "measured": "-",
    }
    if job is None or (metric := job.metrics.get(quantity.metric)) is None:
        return row
    measured = metric / quantity.cards
    row |= {"measured": f"{measured:.{quantity.digits}f}", "run": job.names}
    if quantity.is_accuracy:
        points = measured - quantity.value
        return row | {"difference": f"{points:+.2f}", "within": _verdict(points, tolerance.acc_points)}
    percent = 100 * (measured / quantity.value - 1)
    within = _obstacle(one, quantity, job.run.plan) or _verdict(percent, tolerance.percent)
    return row | {"difference": f"{percent:+.1f} %", "within": within}


def _obstacle(one: Published, quantity: Quantity, plan: LaunchPlan) -> str | None:
    """Why the speed of a run cannot be held against the published one."""
    if plan.device != "Ascend" or not (one.device or "").startswith(ASCEND):
        return f"{plan.device} is another device"
    if quantity.name == "img/s" and plan.world_size != one.cards:
        return f"{plan.world_size} cards, not {one.cards}"
    return None


def _verdict(difference: float, tolerance: float) -> str:
    return f"{'yes' if abs(difference) <= tolerance else 'no'} (±{tolerance:g})"
