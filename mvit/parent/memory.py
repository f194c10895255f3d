"""Memory that one process of a run needs at its peak, by part, from shapes alone.

On a CPU it is resident memory, and `perf/peak_rss_mb` is what to compare it with. On Ascend it is what the graphs need
on a card, which was never measured, without what the driver and the compiler take.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

from mvit.config import Data, DigitsData, ModelConfig, RunConfig, StepsRun, SyntheticData, TrainRun
from mvit.models.spec import parameter_shapes
from mvit.parent.activations import Form, evaluation_bytes, training_bytes
from mvit.parent.free_memory import FreeMemory, gib
from mvit.parent.plan import evaluation_graph
from mvit.plan import BATCHES_AHEAD, MAX_LOGITS, GraphPlan, LaunchPlan

FLOAT = 4
COPIES_WRITTEN = 3
"""Of what a checkpoint holds while it is written: the snapshot, the bytes of its tensors, and the file's."""
FUSED_PROCESS = 615 * 2**20
PLAIN_PROCESS = 1120 * 2**20
"""Python, MindSpore, and what it needs to compile the graphs: measured with MindSpore 2.10 on x86-64, 2 threads."""
PLAIN_HELD = 2.3
"""What the plain form takes in training, as a multiple of what its operators must keep. Fitted to two runs of xx_small,
with 8 and 64 images of 64x64; the reason is unknown."""
BLOCK = 2**30
FRAGMENTED = 0.15
"""What MindSpore's pool takes beside activations larger than BLOCK. Fitted: small with 64 images of 128x128 took 55 %
more from its third step on, x_small and xx_small took none. That the pool is in pieces is a guess."""


@dataclass(frozen=True)
class Memory:
    """Bytes of one process at its peak."""

    process: int
    weights: int
    gradients: int
    optimizer: int
    average: int
    """The moving average of the weights."""
    activations: int
    """Of the largest graph, in training or in evaluation."""
    fragments: int
    """What MindSpore's pool takes beside large activations: see FRAGMENTED."""
    data: int
    """Images in memory, batches prepared ahead, and the logits of an evaluation."""
    checkpoint: int
    """Copies while one is written."""

    @property
    def total(self) -> int:
        return sum(getattr(self, field.name) for field in fields(self))

    def parts(self) -> str:
        """Every part that there is, largest first."""
        sizes = {field.name: getattr(self, field.name) for field in fields(self)}
        largest = sorted(sizes.items(), key=lambda part: -part[1])
        return ", ".join(f"{name} {_mib(size)}" for name, size in largest if size)


def estimate_memory(config: RunConfig, plan: LaunchPlan) -> Memory:
    """The estimate for a planned run."""
    is_cpu = plan.device == "CPU"
    form = _form(config, plan)
    shapes = parameter_shapes(config.model, num_classes=plan.num_classes)
    weights = FLOAT * sum(map(math.prod, shapes.values()))
    training = config if isinstance(config, TrainRun) else None
    stepping = config if isinstance(config, (TrainRun, StepsRun)) else None
    trained = FLOAT * plan.trained_parameters if stepping else 0
    optimizer = trained * stepping.optimizer.moments if stepping else 0
    average = weights if training and training.train.ema_momentum is not None else 0
    # An exported network, of which no graph is planned, is taken for one of the plain form.
    graphs = plan.graphs or (evaluation_graph(config),)
    activations = max(_graph_bytes(graph, config.model, form=form, is_cpu=is_cpu) for graph in graphs)
    return Memory(
        process=(FUSED_PROCESS if form.is_fused else PLAIN_PROCESS) if is_cpu else 0,
        weights=weights,
        # In pieces and as one; their sums; what all workers have added up.
        gradients=trained * (2 + (plan.accumulation > 1) + (plan.world_size > 1)),
        optimizer=optimizer,
        average=average,
        activations=activations,
        fragments=int(FRAGMENTED * activations) if is_cpu and activations > BLOCK else 0,
        data=_data(config.data, plan, graphs=graphs) if is_cpu else 0,
        checkpoint=COPIES_WRITTEN * (weights + optimizer + average) if is_cpu and training else 0,
    )


def _graph_bytes(graph: GraphPlan, model: ModelConfig, *, form: Form, is_cpu: bool) -> int:
    """The activations of one graph."""
    if graph.images is None:
        return 0
    batch_size, image_size, *_ = graph.images
    if graph.mode == "inference":
        return evaluation_bytes(model, image_size=image_size, form=form) * batch_size
    held = 1.0 if form.is_fused or not is_cpu else PLAIN_HELD
    return int(held * training_bytes(model, image_size=image_size, form=form) * batch_size)


def _form(config: RunConfig, plan: LaunchPlan) -> Form:
    """O1 has maps in both types, and counts as fp32."""
    if plan.kernels.isa:
        return Form(is_fused=True, kept_bytes=2 if plan.kernels.activations == "bf16" else FLOAT)
    is_half = config.precision.kind != "fp32" and config.precision.level != "O1"
    return Form(is_fused=False, kept_bytes=2 if is_half else FLOAT)


def too_much(memory: Memory, plan: LaunchPlan, *, free: FreeMemory) -> str | None:
    """One line if the processes of this machine need more than is free."""
    needed = memory.total * (plan.world_size // plan.nodes)
    if plan.device != "CPU" or needed <= free.bytes:
        return None
    return f"{gib(needed)} needed, {gib(free.bytes)} free{free.where}: use smaller batches or images"


def _data(data: Data, plan: LaunchPlan, *, graphs: Sequence[GraphPlan]) -> int:
    """Images that are in memory, the batches that are prepared ahead, and the logits of an evaluation."""
    area, facts = data.image_size**2, plan.dataset
    match data:
        case DigitsData():
            held = (facts.num_train + facts.num_val) * 3 * area
        case SyntheticData(classes=classes):
            held = 2 * classes * area * 8  # a pattern for each class, in float64, for each split
        case _:
            held = 0
    largest = max(math.prod(graph.images) for graph in graphs if graph.images)
    logits = facts.num_val * plan.num_classes
    kept = FLOAT * logits * 2 if logits <= MAX_LOGITS else 0  # by batches, and joined
    return held + (BATCHES_AHEAD + 1) * largest + kept // plan.world_size


def _mib(size: int) -> str:
    return f"{size / 2**20:.0f} MiB" if size >= 2**20 else f"{size / 2**10:.0f} KiB"
