"""What must hold within and between the sections of a configuration."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mvit.config import (
    AugmentConfig,
    ImagesConfig,
    Launch,
    LossScale,
    MlflowTracking,
    ModelConfig,
    NoTracking,
    Optimizer,
    Precision,
    Schedule,
    Task,
    Topology,
    TrainConfig,
    world_size,
)
from mvit.errors import Problem
from mvit.models.spec import STATISTICS, parameter_shapes
from mvit.rundir.exported import exported_form
from mvit.schedule import scaled_lr

Rule = tuple[tuple[str, ...], Callable[..., Iterator[Problem]]]


def judge(rules: list[Rule], sections: Mapping[str, Any]) -> Iterator[Problem]:
    """Apply the rules whose sections are all valid."""
    for names, rule in rules:
        if all(name in sections for name in names):
            yield from rule(*(sections[name] for name in names))


def _shape(model: ModelConfig) -> Iterator[Problem]:
    for index, features in enumerate(model.features):
        if features % model.heads:
            near = _multiples(features, model.heads)
            rule = f"does not divide into {model.heads} heads"
            yield Problem(f"model.features.{index}", features, rule, f"use {near}")
    for name in ("channels", "conv_blocks", "depths", "features", "hidden"):
        for index, value in enumerate(getattr(model, name)):
            if value < 1:
                yield Problem(f"model.{name}.{index}", value, "must be at least 1", "use 1 or more")


def _normalisation(data: ImagesConfig) -> Iterator[Problem]:
    for index, value in enumerate(data.std):
        if value <= 0:
            yield Problem(f"data.std.{index}", value, "must be greater than 0", "use the standard deviation, or 1")


def _ranges(augment: AugmentConfig) -> Iterator[Problem]:
    crop, erasing = augment.crop, augment.erasing
    ranges: list[tuple[str, tuple[float, float], float]] = []
    if crop:
        ranges += [("crop.scale", crop.scale, 1.0), ("crop.ratio", crop.ratio, 100.0)]
    if erasing:
        ranges += [("erasing.scale", erasing.scale, 1.0), ("erasing.ratio", erasing.ratio, 100.0)]
    for name, (low, high), upper in ranges:
        if not 0 < low <= high <= upper:
            rule = f"must be a range with 0 < low <= high <= {upper:g}"
            yield Problem(f"augment.{name}", [low, high], rule, "use, for example, [0.5, 1.0]")


def _mix(augment: AugmentConfig) -> Iterator[Problem]:
    mix = augment.mix
    if mix is None:
        return
    if mix.cutmix_share > 0 and mix.cutmix_alpha == 0:
        rule = "asks for cutmix, whose alpha is 0"
        yield Problem("augment.mix.cutmix_share", mix.cutmix_share, rule, "use 0, or set augment.mix.cutmix_alpha=1.0")
    if mix.cutmix_share < 1 and mix.mixup_alpha == 0:
        rule = "asks for mixup, whose alpha is 0"
        yield Problem("augment.mix.cutmix_share", mix.cutmix_share, rule, "use 1, or set augment.mix.mixup_alpha=0.2")


def global_batches(train: TrainConfig) -> list[tuple[str, int]]:
    """Path and size of every global batch that is trained on."""
    buckets = enumerate(train.buckets)
    batches = [(f"train.buckets.{index}.global_batch_size", bucket.global_batch_size) for index, bucket in buckets]
    return batches or [("train.global_batch_size", train.global_batch_size)]


def _mixed_alone(augment: AugmentConfig, train: TrainConfig, topology: Topology) -> Iterator[Problem]:
    parts = world_size(topology) * train.accumulation
    for path, batch in global_batches(train):
        if augment.mix and batch // parts == 1:
            rule = f"leaves one image for each of {parts} parts, with nothing to mix it with"
            yield Problem(path, batch, rule, f"use {2 * parts} or more, or augment.mix=null")


def _split(train: TrainConfig, topology: Topology) -> Iterator[Problem]:
    parts = world_size(topology) * train.accumulation
    over = f"{world_size(topology)} device{'s' if world_size(topology) > 1 else ''}"
    over += f" x {train.accumulation} micro-batches" if train.accumulation > 1 else ""
    for path, batch in global_batches(train):
        if batch % parts:
            yield Problem(path, batch, f"does not split over {over}", f"use {_multiples(batch, parts)}")


def _buckets(train: TrainConfig) -> Iterator[Problem]:
    sizes = [bucket.image_size for bucket in train.buckets]
    for size in sorted({size for size in sizes if sizes.count(size) > 1}):
        yield Problem("train.buckets", size, "is the image size of two buckets", "use each size once")


def _clip(train: TrainConfig) -> Iterator[Problem]:
    if train.clip_norm is not None and train.clip_value is not None:
        yield Problem("train.clip_value", train.clip_value, "excludes train.clip_norm", "set one of them to null")


def _frozen(train: TrainConfig, model: ModelConfig) -> Iterator[Problem]:
    shapes = parameter_shapes(model, num_classes=model.num_classes or 2)
    names = [name for name in shapes if not name.endswith(STATISTICS)]  # which are not trained anyway
    for pattern in train.freeze:
        if not fnmatch.filter(names, pattern):
            remedy = f"use the pattern of a parameter, as stem.* or {names[-1]}"
            yield Problem("train.freeze", pattern, "matches no parameter", remedy)
    if all(any(fnmatch.fnmatchcase(name, pattern) for pattern in train.freeze) for name in names):
        yield Problem("train.freeze", list(train.freeze), "leaves nothing to train", "remove head.*")


def _loss_scale(loss_scale: LossScale, precision: Precision) -> Iterator[Problem]:
    if loss_scale.kind != "auto" and precision.kind != "fp16":
        remedy = "remove it, or use precision=fp16"
        yield Problem("loss_scale", loss_scale.kind, f"has no effect with precision={precision.kind}", remedy)


def _device_precision(precision: Precision, topology: Topology) -> Iterator[Problem]:
    if precision.kind == "bf16" and topology.kind == "cpu":
        yield Problem("precision", "bf16", "does not run on a CPU", "use precision=fp32 or an Ascend topology")


def _cards(topology: Topology) -> Iterator[Problem]:
    if topology.kind != "ascend":
        return
    if world_size(topology) == 1:
        rule = "has no effect with one card, which runs without msrun"
        for key, unset in (("bind_core", False), ("rank_table", None), ("hccl_connect_s", None), ("hccl_exec_s", None)):
            if getattr(topology, key) != unset:
                remedy = f"use topology.{key}={'null' if unset is None else 'false'}"
                yield Problem(f"topology.{key}", None, rule, remedy)
    if topology.cores is not None:
        if not topology.bind_core:
            rule = "has no effect without topology.bind_core"
            yield Problem("topology.cores", list(topology.cores), rule, "use topology.bind_core=true, or leave it out")
        elif len(topology.cores) != topology.cards_per_node:
            rule = f"has processors for {len(topology.cores)} of {topology.cards_per_node} cards"
            yield Problem("topology.cores", list(topology.cores), rule, "list those of each card")
    if topology.fault_tolerance and topology.jit_level == "O2":
        rule = "does not work with a graph that is compiled as a whole"
        yield Problem("topology.fault_tolerance", list(topology.fault_tolerance), rule, "use topology.jit_level=O1")


def _nodes(topology: Topology) -> Iterator[Problem]:
    if topology.kind == "cpu" and topology.workers % topology.nodes:
        rule = f"do not divide among {topology.nodes} machines"
        yield Problem("topology.workers", topology.workers, rule, f"use {_multiples(topology.workers, topology.nodes)}")
    if topology.hosts is None:
        return
    if topology.nodes == 1:
        rule = "is for several machines, and topology.nodes is 1"
        yield Problem("topology.hosts", list(topology.hosts), rule, "leave it out, or raise topology.nodes")
    elif len(set(topology.hosts)) != topology.nodes or len(topology.hosts) != topology.nodes:
        rule = f"must name {topology.nodes} different machines, this one first"
        yield Problem("topology.hosts", list(topology.hosts), rule, "change it, or topology.nodes")


def _onnx(task: Task) -> Iterator[Problem]:
    if task.kind == "export" and "onnx" in task.formats and find_spec("onnxruntime") is None:
        remedy = "pip install 'mvit[onnx]', or use task.formats=[mindir]"
        yield Problem("task.formats", "onnx", "is checked with onnxruntime, which is not installed", remedy)
    if task.kind == "evaluate" and exported_form(Path(task.checkpoint)) == "onnx" and find_spec("onnxruntime") is None:
        rule = "runs in onnxruntime, which is not installed"
        yield Problem("task.checkpoint", task.checkpoint, rule, "pip install 'mvit[onnx]'")


def _measured(task: Task) -> Iterator[Problem]:
    if task.kind not in ("benchmark", "profile"):
        return
    for name in ("modes", "batch_sizes", "image_sizes"):
        values = getattr(task, name, None)
        if values == ():
            yield Problem(f"task.{name}", [], "leaves nothing to measure", "name one or more")
        elif values is not None and len(set(values)) < len(values):
            yield Problem(f"task.{name}", list(values), "names a value twice", "name each of them once")


def _profiles(task: Task, topology: Topology) -> Iterator[Problem]:
    if task.kind != "profile":
        return
    if topology.kind == "cpu" and topology.workers > 1:
        rule = f"has {topology.workers} processes, and task=profile runs in one"
        yield Problem("topology", None, rule, "use topology=cpu")
    if topology.kind == "ascend":
        rule = "is ascend, and task=profile reads what MindSpore's profiler records on a CPU"
        yield Problem("topology", None, rule, "use topology=cpu, or mindspore.profiler and MindStudio Insight")


def _job_options(launch: Launch) -> Iterator[Problem]:
    if launch.kind != "slurm":
        return
    for option in launch.options:
        name = option.partition("=")[0]
        if not option.startswith("--") or not option.isprintable():
            rule = "is not a long option of sbatch on one line"
            yield Problem("launch.options", option, rule, "use, for example, --gres=npu:8")
        elif name in _OF_THE_SCRIPT:
            yield Problem("launch.options", option, "is what mvit itself decides", "leave it out")


def _job_time(launch: Launch) -> Iterator[Problem]:
    """A job that is told to stop as it starts would be queued again without an end."""
    if launch.kind != "slurm" or launch.time_limit is None:
        return
    limit_s = 60 * launch.time_limit
    if launch.stop_before_s >= limit_s:
        rule = f"is not less than the {limit_s} seconds of launch.time_limit={launch.time_limit}"
        yield Problem("launch.stop_before_s", launch.stop_before_s, rule, "lower it, or raise launch.time_limit")


_OF_THE_SCRIPT = frozenset(
    [
        "--array",
        "--nodes",
        "--ntasks-per-node",
        "--output",
        "--parsable",
        "--signal",
        "--requeue",
        "--no-requeue",
        "--test-only",
        "--wait",
        "--wrap",
    ]
)
"""Options of sbatch that the run or its script depends on."""


def _warmup(schedule: Schedule, train: TrainConfig) -> Iterator[Problem]:
    if schedule.kind == "one_cycle" or schedule.warmup_unit == "steps":
        return
    if schedule.warmup > train.epochs:
        rule = f"is longer than the {train.epochs} epochs of training"
        remedy = f"use {train.epochs} or less, or raise train.epochs"
        yield Problem("schedule.warmup", schedule.warmup, rule, remedy)


def _milestones(schedule: Schedule, train: TrainConfig) -> Iterator[Problem]:
    if schedule.kind != "step":
        return
    milestones = list(schedule.milestones)
    if milestones != sorted(set(milestones)) or not milestones or milestones[0] <= 0 or milestones[-1] >= train.epochs:
        rule = f"must be increasing epochs between 0 and {train.epochs}"
        yield Problem("schedule.milestones", milestones, rule, "use, for example, [30.0, 60.0] of 90")


def _end_lr(schedule: Schedule, optimizer: Optimizer, train: TrainConfig) -> Iterator[Problem]:
    peak = scaled_lr(optimizer, global_batch_size=train.global_batch_size)
    peak_name = "optimizer.lr" if optimizer.lr_batch_size is None else "optimizer.lr scaled to the global batch,"
    for name in ("final_lr", "warmup_from", "initial_lr"):
        value = getattr(schedule, name, 0.0)
        if value > peak:
            rule = f"is above the peak, {peak_name}{'=' if peak_name.endswith('lr') else ' '}{peak:g}"
            yield Problem(f"schedule.{name}", value, rule, f"use {peak:g} or less")


def _no_password(tracking: MlflowTracking | NoTracking) -> Iterator[Problem]:
    if tracking.kind == "mlflow" and tracking.uri and _SECRET.search(tracking.uri):
        remedy = "put them into MLFLOW_TRACKING_URI or MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
        yield Problem("tracking.uri", "(hidden)", "contains credentials, which would be written to disk", remedy)


_SECRET = re.compile(r"://[^\s]*@|[?&][\w-]*(password|passwd|token|secret|key)=", re.IGNORECASE)


def _kernels(model: ModelConfig, topology: Topology, precision: Precision) -> Iterator[Problem]:
    if model.kernels == "fused" and (wrong := _not_for_kernels(topology, precision)):
        yield Problem("model.kernels", "fused", f"is for a CPU in fp32, and {wrong}", "use model.kernels=auto")


def _activations(train: TrainConfig, model: ModelConfig, topology: Topology, precision: Precision) -> Iterator[Problem]:
    wrong = "model.kernels is plain" if model.kernels == "plain" else _not_for_kernels(topology, precision)
    if train.activations == "bf16" and wrong:
        rule = f"is for the fused kernels, and {wrong}"
        yield Problem("train.activations", "bf16", rule, "use train.activations=fp32")


def _not_for_kernels(topology: Topology, precision: Precision) -> str | None:
    """What keeps the fused kernels from being used, if anything does."""
    if topology.kind != "cpu":
        return f"topology is {topology.kind}"
    return None if precision.kind == "fp32" else f"precision is {precision.kind}"


RULES: list[Rule] = [
    (("model",), _shape),
    (("data",), _normalisation),
    (("augment",), _ranges),
    (("augment",), _mix),
    (("augment", "train", "topology"), _mixed_alone),
    (("train", "topology"), _split),
    (("train",), _buckets),
    (("train",), _clip),
    (("train", "model"), _frozen),
    (("loss_scale", "precision"), _loss_scale),
    (("precision", "topology"), _device_precision),
    (("topology",), _cards),
    (("topology",), _nodes),
    (("task",), _onnx),
    (("task",), _measured),
    (("task", "topology"), _profiles),
    (("launch",), _job_options),
    (("launch",), _job_time),
    (("model", "topology", "precision"), _kernels),
    (("train", "model", "topology", "precision"), _activations),
    (("schedule", "train"), _warmup),
    (("schedule", "train"), _milestones),
    (("schedule", "optimizer", "train"), _end_lr),
    (("tracking",), _no_password),
]


def _multiples(value: int, parts: int) -> str:
    below, above = value // parts * parts, (value // parts + 1) * parts
    return f"{below} or {above}" if below else f"{above}"
