"""The result row of a finished run, and the time that past runs took."""

from __future__ import annotations

import statistics
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mvit.config import RunConfig
from mvit.plan import LaunchPlan
from mvit.rundir import RunDir, RunDirError, read_json, read_run


def result_row(config: RunConfig, plan: LaunchPlan, result: dict[str, Any], folder: RunDir) -> dict[str, str]:
    """The columns of MindCV's published table; `-` stands for what this run did not measure."""
    metrics = result["metrics"]

    def number(key: str, form: str) -> str:
        return form.format(metrics[key]) if key in metrics else "-"

    size = config.data.image_size
    train_batches = "/".join(str(bucket.per_device_batch_size) for bucket in plan.buckets)
    better = metrics.get("val/ema_acc1", -1.0) > metrics.get("val/acc1", -1.0)
    accuracy = "val/ema_acc" if better else "val/acc"
    ema = better or result.get("weights") == "ema"
    return {
        "model name": config.model.name,
        "params(M)": f"{plan.parameters / 1e6:.2f}",
        "cards": f"{plan.world_size} {plan.device}",
        "batch size": train_batches if config.task.kind == "train" else str(config.train.eval_batch_size),
        "resolution": "/".join(f"{bucket.image_size}x{bucket.image_size}" for bucket in plan.buckets)
        if config.task.kind == "train"
        else f"{size}x{size}",
        "jit level": plan.jit_level or "-",
        "graph compile": number("perf/compile_s" if "perf/compile_s" in metrics else "perf/compile_eval_s", "{:.1f}s"),
        "ms/step": number("perf/step_ms", "{:.2f}"),
        "img/s": number("perf/images_per_s", "{:.2f}"),
        "acc@top1": number(f"{accuracy}1", "{:.2f}"),
        "acc@top5": number(f"{accuracy}5", "{:.2f}"),
        "recipe": config.name,
        "weights": _weights(config, folder) + (" (EMA)" if ema else ""),
    }


def _weights(config: RunConfig, folder: RunDir) -> str:
    if config.task.kind == "evaluate":
        return Path(config.task.checkpoint).name
    last = folder.checkpoints / "last.json"
    return read_json(last)["file"] if last.exists() else "-"


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
