"""The time that past runs took, for the plan of another."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from mvit.config import RunConfig, StepsRun, TrainRun
from mvit.errors import RunDirError
from mvit.parent.command import worker_environment
from mvit.parent.graphs import are_stored
from mvit.parent.host import this_host
from mvit.parent.report.numbers import duration
from mvit.parent.report.past_run import PastRun, num_evaluations, times_of
from mvit.plan import LaunchPlan
from mvit.rundir.frozen import read_run
from mvit.rundir.paths import RunDir
from mvit.rundir.result import read_result

LOADED_SHARE = 0.1
"""Of the time in which graphs compile, that in which they load, until a run has loaded them: measured on 2 cores."""
MOST_READ = 200
"""Results that are read for an estimate, the newest ones."""
MOST_TIMED = 10
"""Runs whose journals are read for the time of the whole run, which the start of every launch waits for."""


@dataclass(frozen=True)
class Work:
    """What a run does, as far as its time depends on it."""

    steps: int
    """Of training."""
    eval_steps: int
    """Of all evaluations; where nothing is trained, all steps."""
    graphs: tuple[str, ...]


@dataclass(frozen=True)
class PastRuns:
    """What finished runs of the same model, shapes and topology took, for the plan of another."""

    work: Work
    runs: tuple[PastRun, ...]
    cached: bool = False
    """Whether the graphs of the plan are in the compile cache: they are then loaded, as in those runs that did."""

    def run_time(self) -> str:
        """Time of the whole run, in words."""
        seconds = self._seconds()
        if not seconds:
            return "unknown: no finished run of this model, shape and topology"
        about = f"{duration(statistics.median(seconds))} ({_from(seconds)})"
        return f"about {about}" if self._whole() else f"at least {about}, beside start-up and evaluation"

    def run_time_s(self) -> float | None:
        """Median seconds of the whole run, from the command to its return, or of as much as past runs tell, if any."""
        seconds = self._seconds()
        return statistics.median(seconds) if seconds else None

    def _seconds(self) -> list[float]:
        return self._whole() or self._steps_alone()

    def _whole(self) -> list[float]:
        """What this run would take, had it the pace of each past one; for its graphs it is the same."""
        graphs_s = self._graphs_s()
        return [
            graphs_s
            + times.start
            + times.first_step
            + max(0, self.work.steps - 1) * past.result.metrics.get("perf/step_ms", 0.0) / 1e3
            + self.work.eval_steps * times.evaluation
            + times.end
            for past in self.runs
            if graphs_s is not None and (times := past.times)
        ]

    def _steps_alone(self) -> list[float]:
        """The graphs and the steps: of runs that were resumed, the rest was not one run's."""
        step_ms = [past.result.metrics["perf/step_ms"] for past in self.runs if "perf/step_ms" in past.result.metrics]
        return [self.work.steps * ms / 1e3 + (self._graphs_s() or 0.0) for ms in step_ms]

    def _graphs_s(self) -> float | None:
        """Seconds that all graphs take; None where no past run tells."""
        if not self.work.graphs:
            return 0.0
        if (seconds := self.compile_all_s(self.work.graphs)) is not None or not self.cached:
            return seconds
        compiled = replace(self, cached=False).compile_all_s(self.work.graphs)
        return None if compiled is None else compiled * LOADED_SHARE

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
        alike = [past.result.graphs for past in self.runs if past.cached == self.cached]
        return [graphs[graph] for graphs in alike if graph in graphs]


def _rounded(seconds: float) -> str:
    return f"{seconds:.1f}" if seconds < 2 else f"{seconds:.0f}"


def _from(seconds: list[float]) -> str:
    return f"from {len(seconds)} past run{'s' if len(seconds) > 1 else ''}"


def past_runs(config: RunConfig, plan: LaunchPlan, runs: Path) -> PastRuns:
    """The last finished runs below `runs` that compile the same graphs, the newest one first."""
    found: list[PastRun] = []
    files = [*runs.glob("*/*/result.json"), *runs.glob("*/*/*/result.json")]
    for file in sorted(files, key=_modified, reverse=True)[:MOST_READ]:
        with suppress(RunDirError):
            past = read_run(RunDir(file.parent))
            if _runs_alike(past.plan, plan) and _alike(past.config, config) and (r := read_result(past.folder)):
                steps = work_of(past.config, past.plan).eval_steps
                is_read = len(found) < MOST_TIMED
                found.append(PastRun(r, times_of(past.folder, r, eval_steps=steps) if is_read else None))
    environment = worker_environment(config.topology, host=this_host(), logs=runs)
    cached = are_stored(config, plan, environment=environment)
    return PastRuns(work_of(config, plan), tuple(found), cached=cached)


def work_of(config: RunConfig, plan: LaunchPlan) -> Work:
    """What a planned run does."""
    graphs = tuple(graph.name for graph in plan.graphs)
    if isinstance(config, StepsRun):
        return Work(0, len(config.shapes) * config.steps_of_a_shape, graphs)
    evaluations = 1
    if isinstance(config, TrainRun):
        networks = 1 if config.train.ema_momentum is None else 2  # the average too
        evaluations = networks * num_evaluations(plan, every_epochs=config.train.eval_every_epochs)
    return Work(plan.last_step, evaluations * plan.eval_steps, graphs)


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
    if isinstance(one, StepsRun) and isinstance(other, StepsRun):
        return one.optimizer.kind == other.optimizer.kind
    if not (isinstance(one, TrainRun) and isinstance(other, TrainRun)):
        return type(one) is type(other)
    mixed = [config.augment.mix is not None for config in (one, other)]
    trains = [(c.optimizer.kind, c.train.freeze, c.train.ema_momentum is None) for c in (one, other)]
    return mixed[0] == mixed[1] and trains[0] == trains[1]
