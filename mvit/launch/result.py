"""The result row of a finished run, and the time that past runs took."""

from __future__ import annotations

import statistics
from contextlib import suppress
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
    return {
        "model name": config.model.name,
        "params(M)": f"{plan.parameters / 1e6:.2f}",
        "cards": f"{plan.world_size} {plan.device}",
        "batch size": str(plan.per_device_batch_size if config.task.kind == "train" else config.train.eval_batch_size),
        "resolution": f"{size}x{size}",
        "jit level": plan.jit_level or "-",
        "graph compile": number("perf/compile_s" if "perf/compile_s" in metrics else "perf/compile_eval_s", "{:.1f}s"),
        "ms/step": number("perf/step_ms", "{:.2f}"),
        "img/s": number("perf/images_per_s", "{:.2f}"),
        "acc@top1": number("val/acc1", "{:.2f}"),
        "acc@top5": number("val/acc5", "{:.2f}"),
        "recipe": config.name,
        "weights": _weights(config, folder),
    }


def _weights(config: RunConfig, folder: RunDir) -> str:
    if config.task.kind == "evaluate":
        return Path(config.task.checkpoint).name
    last = folder.checkpoints / "last.json"
    return read_json(last)["file"] if last.exists() else "-"


def estimate(config: RunConfig, plan: LaunchPlan, runs: Path) -> str:
    """Time of the run, from finished runs of the same model, shapes and topology."""
    if config.task.kind != "train":
        return "not estimated for this task"
    found: list[float] = []
    for file in sorted(runs.glob("**/result.json"))[-200:]:
        with suppress(RunDirError, OSError, ValueError, KeyError):
            past, past_plan = read_run(RunDir(file.parent))
            metrics = read_json(file)["metrics"]
            if past.model == config.model and past.topology == config.topology and past_plan.graphs == plan.graphs:
                steps = plan.total_steps * metrics["perf/step_ms"] / 1e3
                found.append(steps + metrics["perf/compile_s"] + metrics["perf/compile_eval_s"])
    if not found:
        return "unknown: no finished run of this model, shape and topology"
    plural = "s" if len(found) > 1 else ""
    return f"about {statistics.median(found):.0f} s without evaluation (from {len(found)} past run{plural})"
