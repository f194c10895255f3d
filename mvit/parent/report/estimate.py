"""The time that past runs took, for the plan of another."""

from __future__ import annotations

import statistics
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mvit.config import RunConfig
from mvit.errors import RunDirError
from mvit.files import read_json
from mvit.plan import LaunchPlan
from mvit.rundir.frozen import read_run
from mvit.rundir.paths import RunDir


@dataclass(frozen=True)
class PastRuns:
    """What finished runs of the same model, shapes and topology took, for the plan of another."""

    asked: bool
    """Whether the task is one whose time is told beforehand."""
    steps: int
    results: tuple[dict[str, Any], ...]

    def run_time(self) -> str:
        """Time of the whole run, in words."""
        if not self.asked:
            return "not estimated for this task"
        found = [
            self.steps * past["metrics"]["perf/step_ms"] / 1e3 + sum(past["graphs"].values())
            for past in self.results
            if "perf/step_ms" in past["metrics"]
        ]
        if not found:
            return "unknown: no finished run of this model, shape and topology"
        return f"about {statistics.median(found):.0f} s without evaluation ({_from(found)})"

    def compile_time(self, graph: str) -> str:
        """Time of one graph's compilation, in words."""
        found = [past["graphs"][graph] for past in self.results if graph in past["graphs"]]
        return f"about {statistics.median(found):.0f} s ({_from(found)})" if found else "an unknown time"


def _from(found: list[float]) -> str:
    return f"from {len(found)} past run{'s' if len(found) > 1 else ''}"


def _alike(one: RunConfig, other: RunConfig) -> bool:
    """Whether two runs compile the same graphs, as far as the shapes of batches do not tell."""
    if any(getattr(one, part) != getattr(other, part) for part in ("model", "topology", "precision")):
        return False
    mixed = [config.augment.mix is not None for config in (one, other)]
    trains = [(c.optimizer.kind, c.train.freeze, c.train.ema_momentum is None) for c in (one, other)]
    return mixed[0] == mixed[1] and trains[0] == trains[1]


def past_runs(config: RunConfig, plan: LaunchPlan, runs: Path) -> PastRuns:
    """The last finished runs below `runs` that are like this one."""
    found: list[dict[str, Any]] = []
    for file in sorted(runs.glob("**/result.json"))[-200:]:
        with suppress(RunDirError, OSError, ValueError, KeyError):
            past, past_plan = read_run(RunDir(file.parent))
            result = read_json(file)
            if _alike(past, config) and past_plan.graphs == plan.graphs:
                found.append({"metrics": result["metrics"], "graphs": result["graphs"]})
    return PastRuns(asked=config.task.kind == "train", steps=plan.last_step, results=tuple(found))
