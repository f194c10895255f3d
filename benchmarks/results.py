"""Results of the benchmarks: the form of `experiments/results/*.json`, and the ratios that they give."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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

    @property
    def label(self) -> str:
        return f"{self.model}, {self.batch}x{self.image_size}x{self.image_size}"


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


class StepResult(_File):
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


class Way(_Record):
    """A way to train on the cores, and what was measured of it: a value per round."""

    workers: int
    threads: int
    """Of a worker."""
    batch: int
    """Global."""
    step_ms: tuple[float, ...] = ()
    all_reduce_pct: tuple[float, ...] = ()
    """Share of the step, the wait for the other worker included."""

    @property
    def images_per_s(self) -> list[float]:
        return [1e3 * self.batch / ms for ms in self.step_ms]

    @property
    def all_reduce_ms(self) -> list[float]:
        return [ms * share / 100 for ms, share in zip(self.step_ms, self.all_reduce_pct, strict=True)]

    def with_round(self, *, step_ms: float, all_reduce_pct: float) -> Way:
        """The same with the values of one more round."""
        added = {"step_ms": (*self.step_ms, step_ms), "all_reduce_pct": (*self.all_reduce_pct, all_reduce_pct)}
        return self.model_copy(update=added)


class ScalingResult(_File):
    """Of the scaling benchmark."""

    case: Case
    """With the batch of one worker."""
    ways: tuple[Way, ...]
    """One worker of one thread, one of two, two workers that share the batch, two with a whole batch each."""


class Roof(_Record):
    """What a training step has to do, how long it takes, and what the machine could do: a value per round."""

    case: Case
    gflop: float
    """Multiplications and additions of the forward pass, and twice as many of the backward pass, in 1e9."""
    operators_mb: dict[str, float]
    """By operator, what its calls read and write at least: each input and output once, in 1e6 bytes."""
    step_ms: tuple[float, ...]
    gflop_per_s: tuple[float, ...]
    """Of a product of large matrices."""
    gb_per_s: tuple[float, ...]
    """Read and written, of a copy that no cache holds."""


class RooflineResult(_File):
    """Of the roofline benchmark."""

    threads: int
    roofs: tuple[Roof, ...]


class SweepWay(_Record):
    """A way to go through the trials of a sweep, and what was measured of it: a value per round."""

    name: str
    trials: tuple[int, ...] = ()
    wall_s: tuple[float, ...] = ()
    epochs: tuple[int, ...] = ()
    """Of all trials together."""
    best: tuple[float, ...] = ()
    """Best top-1 accuracy of a trial that was run to its end, %."""

    def with_round(self, *, trials: int, wall_s: float, epochs: int, best: float) -> SweepWay:
        """The way with a round more."""
        return SweepWay(
            name=self.name,
            trials=(*self.trials, trials),
            wall_s=(*self.wall_s, round(wall_s, 1)),
            epochs=(*self.epochs, epochs),
            best=(*self.best, round(best, 3)),
        )


class SweepsResult(_File):
    """Of the sweep benchmark."""

    question: Literal["slots", "graphs", "halving", "search"]
    overrides: tuple[str, ...]
    ways: tuple[SweepWay, ...]
    """The first one is what the others are held against."""


AnyResult = StepResult | SeedsResult | ScalingResult | RooflineResult | SweepsResult
_BY_NAME: dict[str, type[AnyResult]] = {
    "step": StepResult,
    "seeds": SeedsResult,
    "scaling": ScalingResult,
    "roofline": RooflineResult,
    "sweeps": SweepsResult,
}


def read(folder: Path) -> list[AnyResult]:
    """The results in a folder, by benchmark and name."""
    return [
        form.model_validate_json(path.read_bytes())
        for benchmark, form in _BY_NAME.items()
        for path in sorted(folder.glob(f"{benchmark}-*.json"))
    ]


def write(result: AnyResult, path: Path) -> None:
    """The form that `read` reads."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(result.model_dump_json(indent=1) + "\n")


def spread(values: Sequence[float], form: Callable[[float], str]) -> str:
    """Median (minimum-maximum)."""
    if not values:
        return "-"
    return f"{form(median(values))} ({form(min(values))}-{form(max(values))})"
