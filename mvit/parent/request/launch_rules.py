"""What this machine and the data must have for a configuration."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from mvit.config import (
    AscendTopology,
    CheckpointConfig,
    CpuTopology,
    Data,
    EvaluateTask,
    Init,
    Launch,
    ModelConfig,
    PredictTask,
    Schedule,
    Task,
    TrainConfig,
)
from mvit.errors import Problem
from mvit.parent.host import Host
from mvit.parent.plan import bucket_plans
from mvit.parent.request.exported_rules import fits_exported
from mvit.parent.request.rules import Rule, global_batches
from mvit.parent.request.weight_rules import fits_network, same_classes
from mvit.plan import DatasetFacts
from mvit.program import MVIT
from mvit.rundir.exported import exported_form


def host_rules(host: Host) -> list[Rule]:
    """What this machine must have, judged on the sections that ask for it."""

    def cards(topology: CpuTopology | AscendTopology, launch: Launch) -> Iterator[Problem]:
        if topology.kind != "ascend" or launch.kind == "slurm":  # which executes it elsewhere
            return
        if host.ascend_cards < topology.cards_per_node:
            rule = f"needs {topology.cards_per_node} Ascend cards per node, this host has {host.ascend_cards}"
            yield Problem("topology", None, rule, "use topology=cpu, or dry_run=true to see the plan")

    def kernels(model: ModelConfig) -> Iterator[Problem]:
        if model.kernels == "fused" and host.kernels.isa is None:
            yield kernels_unavailable(host.kernels.reason)

    def activations(train: TrainConfig) -> Iterator[Problem]:
        if train.activations == "bf16" and host.kernels.isa is None:
            yield activations_unavailable(host.kernels.reason)

    return [(("topology", "launch"), cards), (("model",), kernels), (("train",), activations)]


def kernels_unavailable(reason: str) -> Problem:
    """The refusal of fused kernels that this machine does not have."""
    return Problem("model.kernels", "fused", f"is not available: {reason}", "use model.kernels=auto")


def activations_unavailable(reason: str) -> Problem:
    """The refusal of what only those kernels can do."""
    rule = f"is for the fused kernels, which are not available: {reason}"
    return Problem("train.activations", "bf16", rule, "use train.activations=fp32")


def _checkpoint(key: str, section: Task | Init) -> Iterator[Problem]:
    if not isinstance(section, CheckpointConfig):
        return
    path, where = Path(section.checkpoint), f"{key}.checkpoint"
    if not path.exists():
        remedy = "name a .safetensors file, or a finished run by its folder or id"
        yield Problem(where, section.checkpoint, "does not exist", remedy)
    elif path.is_file() and exported_form(path):
        if not isinstance(section, EvaluateTask):
            rule = "is an exported network, which task=evaluate alone runs"
            yield Problem(where, section.checkpoint, rule, "name the run or checkpoint that it is made of")
    elif path.is_file() and path.suffix != ".safetensors":
        remedy = f"import it with: {MVIT} weights SRC OUT"
        yield Problem(where, section.checkpoint, "is not a .safetensors file", remedy)


def _output(task: Task) -> Iterator[Problem]:
    if not isinstance(task, PredictTask) or task.output is None:
        return
    if not Path(task.output).parent.is_dir():
        yield Problem("task.output", task.output, "is in a folder that does not exist", "make it, or name another one")


WEIGHT_RULES: list[Rule] = [
    (("task",), _output),
    (("task",), partial(_checkpoint, "task")),
    (("init",), partial(_checkpoint, "init")),
    (("task", "data", "topology"), fits_exported),
    (("task", "model"), partial(fits_network, "task")),
    (("init", "model"), partial(fits_network, "init")),
]
"""What the weights that are named must be, for a launch and for its dry run."""


def data_rules(facts: DatasetFacts) -> list[Rule]:
    """What the data must have for the recipe."""

    def classes(model: ModelConfig, data: Data) -> Iterator[Problem]:
        num_classes = len(facts.class_names)
        if model.num_classes is not None and model.num_classes != num_classes:
            rule = f"is not the number of classes of {data.kind}, {num_classes}"
            yield Problem("model.num_classes", model.num_classes, rule, f"use {num_classes}, or null")

    def batch(train: TrainConfig) -> Iterator[Problem]:
        batches = global_batches(train)
        for path, size in batches:
            if size > facts.num_train:
                rule = f"is more than the {facts.num_train} training images"
                yield Problem(path, size, rule, f"use {facts.num_train} or less")
        together = sum(size for _, size in batches)
        if len(batches) > 1 and max(size for _, size in batches) <= facts.num_train < together:
            rule = f"are more than the {facts.num_train} training images together: some sizes would get no steps"
            yield Problem("train.buckets", together, rule, "use smaller batches or fewer sizes")

    def warmup(schedule: Schedule, train: TrainConfig, data: Data) -> Iterator[Problem]:
        if schedule.kind == "one_cycle" or schedule.warmup_unit == "epochs":
            return
        buckets = bucket_plans(train, data.image_size, parts=1, facts=facts)
        steps = train.epochs * sum(bucket.steps_per_epoch for bucket in buckets)
        if schedule.warmup > steps:
            rule = f"is longer than the {steps} steps of training"
            yield Problem("schedule.warmup", schedule.warmup, rule, f"use {steps} or less, or raise train.epochs")

    def validation(_data: Data) -> Iterator[Problem]:
        if not facts.num_val:
            yield Problem("data", None, "has no readable validation image", "repair them")

    def weights(task: Task) -> Iterator[Problem]:
        yield from same_classes(task, num_classes=len(facts.class_names))

    return [
        (("data",), validation),
        (("task",), weights),
        (("model", "data"), classes),
        (("train",), batch),
        (("schedule", "train", "data"), warmup),
    ]
