"""From a configuration and facts about the host to a plan of the launch; pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from mvit.config import (
    EvaluateRun,
    RunConfig,
    StepsRun,
    TrainConfig,
    TrainRun,
    world_size,
)
from mvit.models import spec
from mvit.parent.host import Host
from mvit.plan import BucketPlan, DatasetFacts, GraphPlan, KernelsPlan, LaunchPlan
from mvit.rundir.exported import exported_form
from mvit.schedule import scaled_lr


def make_plan(config: RunConfig, *, host: Host, facts: DatasetFacts) -> LaunchPlan:
    """The plan; `config`, `host` and `facts` have passed their rules."""
    topology = config.topology
    world = world_size(topology)
    local = world // topology.nodes
    num_classes = len(facts.class_names)
    training = config if isinstance(config, TrainRun) else None
    frozen = training.train.freeze if training else ()
    accumulation = training.train.accumulation if training else 1
    image_size, parts = config.data.image_size, world * accumulation
    buckets = bucket_plans(training.train, image_size, parts=parts, facts=facts) if training else ()
    steps_per_epoch = sum(bucket.steps_per_epoch for bucket in buckets)
    total_steps = steps_per_epoch * training.train.epochs if training else 0
    return LaunchPlan(
        world_size=world,
        nodes=topology.nodes,
        device="CPU" if topology.kind == "cpu" else "Ascend",
        threads=(topology.threads or max(1, host.cpu_count // local)) if topology.kind == "cpu" else None,
        jit_level=topology.jit_level if topology.kind == "ascend" else None,
        kernels=_kernels(config, host),
        buckets=buckets,
        accumulation=accumulation,
        num_classes=num_classes,
        steps_per_epoch=steps_per_epoch,
        total_steps=total_steps,
        last_step=min(total_steps, (training and training.train.max_steps) or total_steps),
        peak_lr=scaled_lr(training.optimizer, global_batch_size=training.train.global_batch_size) if training else 0.0,
        eval_steps=math.ceil(math.ceil(facts.num_val / world) / config.eval_batch_size),
        graphs=_graphs(config, buckets),
        parameters=spec.count_parameters(config.model, num_classes=num_classes),
        trained_parameters=spec.count_parameters(config.model, num_classes=num_classes, without=frozen),
        macs=spec.count_macs(config.model, num_classes=num_classes, image_size=image_size),
        dataset=facts,
    )


def bucket_plans(train: TrainConfig, image_size: int, *, parts: int, facts: DatasetFacts) -> tuple[BucketPlan, ...]:
    """The shapes of training batches, and how many steps of an epoch each has.

    Each bucket has as many steps as fit when all have the same number, and then, in their order, one more while
    samples are left for it: an epoch has the same number of steps on every rank and in every epoch.
    """
    batches = [(bucket.image_size, bucket.global_batch_size) for bucket in train.buckets]
    batches = batches or [(image_size, train.global_batch_size)]
    rounds, left = divmod(facts.num_train, sum(batch for _, batch in batches))
    planned: list[BucketPlan] = []
    for size, batch in batches:
        extra = int(batch <= left)
        left -= extra * batch
        planned.append(
            BucketPlan(
                image_size=size,
                global_batch_size=batch,
                per_device_batch_size=batch // parts,
                steps_per_epoch=rounds + extra,
            )
        )
    return tuple(planned)


def runs_exported(config: RunConfig) -> bool:
    """Whether a network is evaluated that was exported, of which mvit compiles nothing."""
    return isinstance(config, EvaluateRun) and exported_form(Path(config.task.checkpoint)) is not None


def _kernels(config: RunConfig, host: Host) -> KernelsPlan:
    """The fused form where the configuration lets this host use it; the rules have refused what cannot be."""
    if runs_exported(config):
        return plain_form("an exported network brings its own")
    if config.model.kernels == "plain":
        return plain_form("model.kernels=plain")
    if config.topology.kind != "cpu":
        return plain_form("fused kernels are for a CPU")
    if config.precision.kind != "fp32":
        return plain_form("fused kernels are for precision=fp32")
    if host.kernels.isa is None:
        return without_kernels(host.kernels.reason)
    activations = config.train.activations if isinstance(config, TrainRun) else "fp32"
    return KernelsPlan(isa=host.kernels.isa, reason="", activations=activations)


def without_kernels(reason: str) -> KernelsPlan:
    """The plain form, for want of the fused one."""
    return plain_form(f"several times slower than fused; {reason}")


def plain_form(reason: str) -> KernelsPlan:
    return KernelsPlan(isa=None, reason=reason, activations="fp32")


def _graphs(config: RunConfig, buckets: Sequence[BucketPlan]) -> tuple[GraphPlan, ...]:
    if isinstance(config, StepsRun):
        return tuple(
            GraphPlan(name=f"{mode}_{batch}x{side}", mode=mode, images=(batch, side, side, 3))
            for mode, batch, side in config.shapes
        )
    if runs_exported(config):
        return ()
    if not isinstance(config, TrainRun):
        return (evaluation_graph(config),)
    accumulates = config.train.accumulation > 1
    name = "accumulate" if accumulates else "train"
    shapes = [(bucket.per_device_batch_size, bucket.image_size, bucket.image_size, 3) for bucket in buckets]
    names = [f"{name}-{shape[1]}" if len(shapes) > 1 else name for shape in shapes]
    graphs = [GraphPlan(name=name, mode="train", images=shape) for name, shape in zip(names, shapes, strict=True)]
    if accumulates:
        graphs.append(GraphPlan(name="update", mode="train", images=None))
    return (*graphs, evaluation_graph(config))


def evaluation_graph(config: RunConfig) -> GraphPlan:
    size = config.data.image_size
    return GraphPlan(name="evaluate", mode="inference", images=(config.eval_batch_size, size, size, 3))
