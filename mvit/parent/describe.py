"""The plan as lines for a person."""

from __future__ import annotations

from collections.abc import Iterator

from mvit.config import (
    Bf16Precision,
    Data,
    DynamicLossScale,
    FixedLossScale,
    Fp16Precision,
    Fp32Precision,
    Precision,
    RunConfig,
)
from mvit.parent.report.estimate import PastRuns
from mvit.parent.request.weight_rules import starts_from
from mvit.plan import DatasetFacts, LaunchPlan


def describe(config: RunConfig, plan: LaunchPlan, *, past: PastRuns) -> Iterator[tuple[str, str]]:
    """The plan as lines of (what, value), for `dry_run` and the head of a run."""
    trained = "" if plan.trained_parameters == plan.parameters else f" ({plan.trained_parameters / 1e6:.2f} M trained)"
    size = f"{plan.parameters / 1e6:.2f} M parameters{trained}"
    yield "model", f"{config.model.name}, {size}, {plan.macs / 1e9:.3f} GMACs/image"
    if config.init.kind == "weights":
        yield "weights", starts_from(config.init, num_classes=plan.num_classes)
    yield "data", _data_line(config.data, plan.dataset)
    yield "devices", f"{plan.world_size} {plan.device}{f' on {plan.nodes} machines' if plan.nodes > 1 else ''}"
    yield "precision", _precision_line(config.precision) + (f", jit level {plan.jit_level}" if plan.jit_level else "")
    if config.task.kind == "train":
        for bucket in plan.buckets:
            batches = f"{plan.world_size} x {bucket.per_device_batch_size}"
            batches += f" x {plan.accumulation} micro-batches" if plan.accumulation > 1 else ""
            at = f" at {bucket.image_size}x{bucket.image_size}, {bucket.steps_per_epoch} steps an epoch"
            yield "global batch", f"{bucket.global_batch_size} = {batches}{at if len(plan.buckets) > 1 else ''}"
        yield (
            "steps",
            f"{plan.total_steps} = {config.train.epochs} epochs x {plan.steps_per_epoch}"
            + (f", stopped after {plan.last_step}" if plan.last_step < plan.total_steps else ""),
        )
        yield "peak rate", f"{plan.peak_lr:g}"
    yield "evaluation", f"{plan.eval_steps} steps x {config.train.eval_batch_size} on each device"
    for graph in plan.graphs:
        shape = "x".join(map(str, graph.images)) + ", " if graph.images else ""
        yield "graph", f"{graph.name}: {shape}compiles in {past.compile_time(graph.name)}"
    yield "time", past.run_time()


def _precision_line(precision: Precision) -> str:
    match precision:
        case Fp32Precision():
            return "fp32"
        case Bf16Precision():
            return f"bf16 {precision.level}"
        case Fp16Precision(loss_scale=FixedLossScale(value=value)):
            return f"fp16 {precision.level}, loss scale {value:g}"
        case Fp16Precision(loss_scale=DynamicLossScale(initial=initial)):
            return f"fp16 {precision.level}, dynamic loss scale from {initial:g}"
        case _:
            raise AssertionError(precision)


def _data_line(data: Data, facts: DatasetFacts) -> str:
    line = f"{data.kind}, {facts.num_train} + {facts.num_val} images, {len(facts.class_names)} classes, "
    line += f"{data.image_size}x{data.image_size}"
    return line + (f", {len(facts.skipped)} unreadable images skipped" if facts.skipped else "")
