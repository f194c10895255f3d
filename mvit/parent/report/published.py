"""Published numbers: experiments/published.json."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from mvit.config import Frozen
from mvit.parent.report.accuracy import Scores
from mvit.places import EXPERIMENTS

FILE = EXPERIMENTS / "published.json"


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

    def quantities(self, cards: int, scores: Scores) -> Iterator[Quantity]:
        """What was published, for a run on so many cards, of whose evaluations these scores count."""
        of_card = self.images_per_s / self.cards if self.images_per_s and self.cards else None
        every = (
            Quantity("acc@top1", f"{scores}acc1", self.acc1, 2),
            Quantity("acc@top5", f"{scores}acc5", self.acc5, 2),
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
