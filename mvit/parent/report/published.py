"""Published numbers, and what our runs of the same experiment came to beside them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from mvit.config import Frozen
from mvit.parent.host import CHECKOUT
from mvit.parent.report.grid import Grid
from mvit.parent.report.results import Job
from mvit.plan import LaunchPlan

FILE = CHECKOUT / "experiments/published.json"
HEADINGS = ("experiment", "source", "quantity", "published", "measured", "difference", "within", "run")
NUMBERS = ("published", "measured", "difference")
MAY_GO = ("within", "source", "run")
ASCEND = ("Ascend", "Atlas")
"""What the names of Ascend hardware begin with."""


@dataclass(frozen=True)
class Quantity:
    """One published number, and the metric of ours that it is held against."""

    name: str
    metric: str
    value: float | None
    digits: int
    cards: int = 1
    """By which ours is divided."""

    @property
    def is_accuracy(self) -> bool:
        return self.metric.startswith("val/")


class Published(Frozen):
    """A row of somebody's table; see `units` in the file."""

    model: str
    source: str
    recipe: str | None
    """Our experiment that repeats it."""
    acc1: float | None
    acc5: float | None
    image_size: int
    ms_per_step: float | None
    images_per_s: float | None
    compile_s: float | None
    batch_size: int | None
    cards: int | None
    device: str | None
    jit_level: str | None
    version: str | None

    def quantities(self, cards: int) -> Iterator[Quantity]:
        """What was published, for a run on so many cards."""
        of_card = self.images_per_s / self.cards if self.images_per_s and self.cards else None
        every = (
            Quantity("acc@top1", "val/acc1", self.acc1, 2),
            Quantity("acc@top5", "val/acc5", self.acc5, 2),
            Quantity("ms/step", "perf/step_ms", self.ms_per_step, 2),
            Quantity("img/s", "perf/images_per_s", self.images_per_s, 0),
            Quantity("img/s a card", "perf/images_per_s", of_card, 0, cards),
            Quantity("graph compile, s", "perf/compile_s", self.compile_s, 0),
        )
        yield from (one for one in every if one.value is not None)


class Tolerance(Frozen):
    """How far a run may be off and still repeat a published number."""

    acc_points: float
    percent: float
    why: str


class PublishedNumbers(Frozen):
    """experiments/published.json."""

    units: Mapping[str, str]
    tolerance: Tolerance
    results: list[Published]


@cache
def read_published(file: Path = FILE) -> PublishedNumbers:
    """Raises `ValueError` for a file that does not hold published numbers."""
    return PublishedNumbers.model_validate_json(file.read_bytes())


def compared(jobs: Sequence[Job]) -> Grid:
    """A row for each number of the published results and each of our jobs that repeats it; or one if none does."""
    rows: list[dict[str, str]] = []
    numbers = read_published()
    for one in numbers.results:
        if one.recipe is None:  # nothing of ours repeats it
            continue
        for job in [job for job in jobs if job.run.config.name == one.recipe] or [None]:
            cards = job.run.plan.world_size if job else 1
            rows += [_row(one, quantity, job, numbers.tolerance) for quantity in one.quantities(cards)]
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
