"""The plan as lines for a person."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import version

from mvit.config import (
    BenchmarkTask,
    Data,
    DynamicLossScale,
    FixedLossScale,
    Fp32Precision,
    ProfileTask,
    RunConfig,
    StepsRun,
    TrainRun,
)
from mvit.parent.free_memory import free_memory, gib
from mvit.parent.memory import Memory, estimate_memory, too_much
from mvit.parent.report.estimate import PastRuns
from mvit.parent.request.weight_rules import differences, starts_from
from mvit.plan import DatasetFacts, KernelsPlan, LaunchPlan


def describe(config: RunConfig, plan: LaunchPlan, *, past: PastRuns) -> Iterator[tuple[str, str]]:
    """The plan as lines of (what, value), for `dry_run` and the head of a run."""
    trained = "" if plan.trained_parameters == plan.parameters else f" ({plan.trained_parameters / 1e6:.2f} M trained)"
    size = f"{plan.parameters / 1e6:.2f} M parameters{trained}"
    yield "model", f"{config.model.name}, {size}, {plan.macs / 1e9:.3f} GMACs/image"
    if isinstance(config, TrainRun) and config.init.kind == "weights":
        yield "weights", starts_from(config.init, num_classes=plan.num_classes)
    for line in differences(config):
        yield "differs", line
    if isinstance(config, StepsRun):
        yield "data", f"images of noise in memory, {plan.num_classes} classes"
    else:
        yield "data", _data_line(config.data, plan.dataset)
    yield "devices", f"{plan.world_size} {plan.device}{f' on {plan.nodes} nodes' if plan.nodes > 1 else ''}"
    yield "precision", _precision_line(config) + _jit_level(plan.jit_level)
    yield "kernels", _kernels_line(plan.kernels)
    if isinstance(config, TrainRun):
        for bucket in plan.buckets:
            batches = f"{plan.world_size} x {bucket.per_device_batch_size}"
            batches += f" x {plan.accumulation} micro-batches" if plan.accumulation > 1 else ""
            at = f" at {bucket.image_size}x{bucket.image_size}, {bucket.steps_per_epoch} steps per epoch"
            yield "global batch", f"{bucket.global_batch_size} = {batches}{at if len(plan.buckets) > 1 else ''}"
        yield (
            "steps",
            f"{plan.total_steps} = {_count(config.train.epochs, 'epoch')} x {plan.steps_per_epoch}"
            + (f", ends after {plan.last_step}" if plan.last_step < plan.total_steps else ""),
        )
        yield "peak rate", f"{plan.peak_lr:g}"
    match config.task:
        case BenchmarkTask(warmup_steps=warmup, repeats=repeats):
            yield "steps", f"{repeats} of each shape, after {_count(warmup, 'step')} of warm-up"
        case ProfileTask(warmup_steps=warmup, steps=steps):
            yield "steps", f"{steps} unrecorded and {steps} recorded, after {_count(warmup, 'step')} of warm-up"
        case _:
            what = "prediction" if config.task.kind == "predict" else "evaluation"
            yield what, f"{plan.eval_steps} steps x {config.eval_batch_size} per device"
    verb = "is in the compile cache, loads" if past.cached else "compiles"
    for graph in plan.graphs:
        shape = "x".join(map(str, graph.images)) + ", " if graph.images else ""
        yield "graph", f"{graph.name}: {shape}{verb} in {past.compile_time(graph.name)}"
    memory = estimate_memory(config, plan)
    yield "memory", _memory_line(memory, plan)
    if excess := too_much(memory, plan, free=free_memory()):
        yield "warning", excess
    yield "time", past.run_time()


def _jit_level(level: str | None) -> str:
    """The compilation level, and what it means on the MindSpore that is installed."""
    if level is None:
        return ""
    meaning = {
        "O0": "operator by operator",
        "O1": "MindSpore fuses operators",
        "O2": "CANN's graph engine compiles the whole graph",
    }[level]
    installed, advice = version("mindspore"), ""
    if level == "O2" and tuple(map(int, installed.split(".")[:2])) >= (2, 9):
        advice = f"; deprecated since MindSpore 2.9, and {installed} is installed: O1 takes its place"
    return f", jit level {level}: {meaning}{advice}"


def _memory_line(memory: Memory, plan: LaunchPlan) -> str:
    """What one process needs, by part; of a card, nobody has measured it."""
    if plan.device == "Ascend":
        return f"about {gib(memory.total)} on each card, by shapes alone, never measured: {memory.parts()}"
    each = f" in each of {plan.world_size} processes" if plan.world_size > 1 else ""
    return f"about {gib(memory.total)}{each}: {memory.parts()}"


def _kernels_line(kernels: KernelsPlan) -> str:
    """The form of the network, and why it is the plain one."""
    if kernels.isa is None:
        return f"plain ({kernels.reason})"
    return f"fused, {kernels.isa}{', activations in bf16' if kernels.activations == 'bf16' else ''}"


def _precision_line(config: RunConfig) -> str:
    precision = config.precision
    if isinstance(precision, Fp32Precision):
        return "fp32"
    line = f"{precision.kind} {precision.level}"
    match config.scaling if isinstance(config, TrainRun) else None:
        case FixedLossScale(value=value):
            return f"{line}, loss scale {value:g}"
        case DynamicLossScale(initial=initial):
            return f"{line}, dynamic loss scale from {initial:g}"
        case None:
            return line


def _data_line(data: Data, facts: DatasetFacts) -> str:
    train = "" if data.kind == "files" else f"{facts.num_train} + "
    line = f"{data.kind}, {train}{facts.num_val} images, {len(facts.class_names)} classes, "
    line += f"{data.image_size}x{data.image_size}"
    return line + (f", {len(facts.skipped)} unreadable images skipped" if facts.skipped else "")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
