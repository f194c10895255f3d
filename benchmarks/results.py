"""Results of the benchmarks: the form of `experiments/results/*.json`, and the ratios that they give."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Model = Literal["xx_small", "x_small", "small"]
Step = Literal["train", "evaluate"]


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Case(_Record):
    """What is trained and evaluated."""

    model: Model
    batch: int = Field(gt=0)
    image_size: int = Field(gt=0)


class Measured(_Record):
    """A subject in one group. Times are medians of a turn's steps, a value per round; a batch takes so long."""

    name: str
    versions: dict[str, str]
    isa: str
    """The vectors that it computes with, in its own words."""
    parameters: int
    """The number of values that are trained."""
    steps: int
    """Steps of each kind in a turn."""
    first_s: float
    """Compilation of the training graph, where there is one, and the first training step."""
    peak_mb: float
    """Peak of the process's resident memory, compilation included."""
    train_ms: tuple[float, ...]
    evaluate_ms: tuple[float, ...]

    def ms(self, step: Step) -> tuple[float, ...]:
        return self.train_ms if step == "train" else self.evaluate_ms


class Group(_Record):
    """Subjects that took turns."""

    case: Case
    load_before: float
    """The machine's load average of one minute, which counts the benchmark itself from the second group on."""
    load_after: float
    other_cores: float
    """Processors that other work used during the rounds, on average."""
    subjects: tuple[Measured, ...]


class _File(_Record):
    """One file of a benchmark."""

    form: Literal[1] = 1
    """Counts changes that make older files unreadable."""
    date: str
    """When it began, UTC, as 2026-11-24T10:00:00Z."""
    commit: str
    """As `git describe --always --dirty` says it."""
    cpu: str


class Result(_File):
    """Of the step benchmark."""

    isa: tuple[str, ...]
    """The vector extensions among the flags of /proc/cpuinfo."""
    cores: int
    threads: int
    """Threads of every subject."""
    rounds: int
    groups: tuple[Group, ...]

    @property
    def cases(self) -> list[Case]:
        """In the order in which they were measured."""
        return list(dict.fromkeys(group.case for group in self.groups))

    def names(self, case: Case) -> list[str]:
        """The subjects of a case, in the order of their first turn."""
        return list(dict.fromkeys(one.name for group in self._groups(case) for one in group.subjects))

    def measured(self, case: Case, name: str) -> list[Measured]:
        """A subject in every group of the case that it was in."""
        return [one for group in self._groups(case) for one in group.subjects if one.name == name]

    def values(self, case: Case, name: str, step: Step) -> list[float]:
        """Milliseconds of all rounds."""
        return [value for one in self.measured(case, name) for value in one.ms(step)]

    def ratios(self, case: Case, name: str, step: Step, *, to: str) -> list[float]:
        """Times of a subject over those of another in the same round; empty if they took no turns with each other."""
        found: list[float] = []
        for group in self._groups(case):
            ours, theirs = ([one for one in group.subjects if one.name == wanted] for wanted in (name, to))
            for one, other in zip(ours, theirs, strict=False):
                found += [a / b for a, b in zip(one.ms(step), other.ms(step), strict=True)]
        return found

    def _groups(self, case: Case) -> list[Group]:
        return [group for group in self.groups if group.case == case]


class SeedsResult(_File):
    """Of the seeds benchmark."""

    overrides: tuple[str, ...]
    """Of the default job."""
    acc1: dict[str, tuple[float, ...]]
    """Best top-1 accuracy, %, by form of the kernels: one for each seed, from 0 on."""


def read_seeds(folder: Path) -> list[SeedsResult]:
    """The results of the seeds benchmark in a folder, by name."""
    return [SeedsResult.model_validate_json(path.read_bytes()) for path in sorted(folder.glob("seeds-*.json"))]


def read(folder: Path) -> list[Result]:
    """The results of the step benchmark in a folder, by name."""
    return [Result.model_validate_json(path.read_bytes()) for path in sorted(folder.glob("step-*.json"))]


def spread(values: list[float], form: Callable[[float], str]) -> str:
    """Median (minimum-maximum)."""
    if not values:
        return "-"
    return f"{form(median(values))} ({form(min(values))}-{form(max(values))})"
