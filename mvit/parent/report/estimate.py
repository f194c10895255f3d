"""The time that past runs took, for the plan of another."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from mvit.config import RunConfig, TrainRun
from mvit.errors import RunDirError
from mvit.parent.command import worker_environment
from mvit.parent.graphs import are_stored
from mvit.parent.host import this_host
from mvit.plan import LaunchPlan
from mvit.rundir.frozen import read_run
from mvit.rundir.paths import RunDir
from mvit.rundir.result import Result, read_result

MOST_READ = 200
"""Results that are read for an estimate, the newest ones."""


@dataclass(frozen=True)
class PastRuns:
    """What finished runs of the same model, shapes and topology took, for the plan of another."""

    trains: bool
    steps: int
    results: tuple[Result, ...]
    cached: bool = False
    """Whether the graphs of the plan are in the compile cache: they are then loaded, as in those runs that did."""

    def run_time(self) -> str:
        """Time of the whole run, in words."""
        if not self.trains:
            return "not estimated for this task"
        if not (seconds := self._seconds()):
            return "unknown: no finished run of this model, shape and topology"
        return f"about {statistics.median(seconds):.0f} s without evaluation ({_from(seconds)})"

    def run_time_s(self) -> float | None:
        """Median seconds of the whole run without evaluation; None where no past run tells."""
        seconds = self._seconds() if self.trains else []
        return statistics.median(seconds) if seconds else None

    def _seconds(self) -> list[float]:
        return [
            self.steps * past.metrics["perf/step_ms"] / 1e3 + (self.compile_all_s(past.graphs) or 0.0)
            for past in self.results
            if "perf/step_ms" in past.metrics
        ]

    def compile_s(self, graph: str) -> float | None:
        """Median seconds that the graph took to compile; None if no past run compiled it."""
        seconds = self._compiled_in(graph)
        return statistics.median(seconds) if seconds else None

    def compile_all_s(self, graphs: Iterable[str]) -> float | None:
        """Seconds that all of them took to compile, one after the other; None if one is unknown."""
        seconds = [self.compile_s(graph) for graph in graphs]
        measured = [second for second in seconds if second is not None]
        return sum(measured) if measured and len(measured) == len(seconds) else None

    def compile_time(self, graph: str) -> str:
        """Time of one graph's compilation, in words."""
        seconds = self._compiled_in(graph)
        return f"about {_rounded(statistics.median(seconds))} s ({_from(seconds)})" if seconds else "an unknown time"

    def _compiled_in(self, graph: str) -> list[float]:
        """Seconds that the graph took in past runs which compiled it, or loaded it, as this one will."""
        alike = [past for past in self.results if bool(past.metrics.get("perf/compile_cached")) == self.cached]
        return [past.graphs[graph] for past in alike if graph in past.graphs]


def _rounded(seconds: float) -> str:
    return f"{seconds:.1f}" if seconds < 2 else f"{seconds:.0f}"


def _from(seconds: list[float]) -> str:
    return f"from {len(seconds)} past run{'s' if len(seconds) > 1 else ''}"


def past_runs(config: RunConfig, plan: LaunchPlan, runs: Path) -> PastRuns:
    """The last finished runs below `runs` that compile the same graphs."""
    results: list[Result] = []
    files = [*runs.glob("*/*/result.json"), *runs.glob("*/*/*/result.json")]
    for file in sorted(files, key=_modified)[-MOST_READ:]:
        with suppress(RunDirError):
            past = read_run(RunDir(file.parent))
            if _runs_alike(past.plan, plan) and _alike(past.config, config) and (r := read_result(past.folder)):
                results.append(r)
    environment = worker_environment(config.topology, host=this_host(), logs=runs)
    cached = are_stored(config, plan, environment=environment)
    return PastRuns(trains=config.task.kind == "train", steps=plan.last_step, results=tuple(results), cached=cached)


def _runs_alike(one: LaunchPlan, other: LaunchPlan) -> bool:
    return (one.graphs, one.kernels.isa, one.threads) == (other.graphs, other.kernels.isa, other.threads)


def _modified(file: Path) -> float:
    """When the file was written; one that a resumed run has just removed comes first."""
    with suppress(OSError):
        return file.stat().st_mtime
    return 0.0


def _alike(one: RunConfig, other: RunConfig) -> bool:
    """Whether two runs compile the same graphs, as far as the shapes of batches do not tell."""
    if any(getattr(one, part) != getattr(other, part) for part in ("model", "topology", "precision")):
        return False
    if not (isinstance(one, TrainRun) and isinstance(other, TrainRun)):
        return type(one) is type(other)
    mixed = [config.augment.mix is not None for config in (one, other)]
    trains = [(c.optimizer.kind, c.train.freeze, c.train.ema_momentum is None) for c in (one, other)]
    return mixed[0] == mixed[1] and trains[0] == trains[1]
