"""The result row of a finished run."""

from __future__ import annotations

from pathlib import Path

from mvit.config import StepsRun
from mvit.parent.report.accuracy import scores_of
from mvit.rundir.checkpoints import tagged
from mvit.rundir.frozen import Run
from mvit.rundir.result import EvaluateResult, Result


def result_row(run: Run, result: Result) -> dict[str, str]:
    """The columns of MindCV's published table, and beside them the global batch, the best accuracy and others' load.

    `-` stands for what this run did not measure.
    """
    config, plan, metrics = run.config, run.plan, result.metrics

    def number(key: str, form: str) -> str:
        return form.format(metrics[key]) if key in metrics else "-"

    trains = config.task.kind == "train"
    if trains:
        batches = [bucket.per_device_batch_size for bucket in plan.buckets]
        sizes = [bucket.image_size for bucket in plan.buckets]
    elif isinstance(config, StepsRun):
        batches, sizes = (sorted({shape[index] for shape in config.shapes}) for index in (1, 2))
    else:
        batches, sizes = [config.eval_batch_size], [config.data.image_size]
    global_batches = [batch * plan.accumulation * plan.world_size for batch in batches]
    cached = " (cached)" if metrics.get("perf/compile_cached") else ""
    scores = scores_of([metrics])
    ema = scores == "val/ema_" or (isinstance(result, EvaluateResult) and result.weights == "ema")
    return {
        "model name": config.model.name,
        "params(M)": f"{plan.parameters / 1e6:.2f}",
        "cards": f"{plan.world_size} {plan.device}",
        "global batch": "/".join(map(str, global_batches)),
        "batch size": "/".join(map(str, batches)),
        "resolution": "/".join(f"{size}x{size}" for size in sizes),
        "jit level": plan.jit_level or "-",
        "graph compile": number("perf/compile_s" if trains else "perf/compile_eval_s", "{:.1f}s" + cached),
        "ms/step": number("perf/step_ms", "{:.2f}"),
        "img/s": number("perf/images_per_s", "{:.2f}"),
        "load": f"{metrics['perf/other_load_pct'] / 100:.1f} cores" if "perf/other_load_pct" in metrics else "-",
        "acc@top1": number(f"{scores}acc1", "{:.2f}"),
        "best acc@top1": number("best/val_acc1", "{:.2f}"),
        "acc@top5": number(f"{scores}acc5", "{:.2f}"),
        "recipe": config.name,
        "weights": _weights(run) + (" (EMA)" if ema else ""),
    }


def _weights(run: Run) -> str:
    task = run.config.task
    if task.kind == "evaluate":
        return Path(task.checkpoint).name
    last = tagged(run.folder.checkpoints, "last")
    return last.tensors.name if last else "-"
