"""Plan: everything that a launch decides before a process starts, as data.

Made by `parent/plan.py`, frozen into run.json, read by the workers.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from mvit.config import Frozen, Mode, Strings

WARM_STEPS = 3
"""First steps of each shape, which do not count towards the throughput."""
BATCHES_AHEAD = 3
"""Batches that are being prepared while one is computed."""
MAX_LOGITS = 1 << 27
"""Most logits of an evaluation that are kept, half a gigabyte of them: ImageNet has 5 * 10^7."""


class DatasetFacts(Frozen):
    """The result of surveying the data, without decoding it."""

    num_train: int
    num_val: int
    class_names: Strings
    fingerprint: str
    """sha256 over the names and sizes of the files, or over the parameters that generate the data."""
    skipped: Strings
    """Paths of images left out because they cannot be decoded, relative to the root."""


class BucketPlan(Frozen):
    """One shape of training batches; without multi-scale training there is one."""

    image_size: int
    global_batch_size: int
    per_device_batch_size: int
    """Images of one micro-batch on one device."""
    steps_per_epoch: int


class GraphPlan(Frozen):
    """One graph to compile, and the shape (B, S, S, 3) of its batch; None if it takes no images."""

    name: str
    mode: Mode
    images: Annotated[tuple[int, int, int, int], Field(strict=False)] | None


class KernelsPlan(Frozen):
    """In which form the network computes. Both have the same parameters; results differ by rounding."""

    isa: Literal["avx512", "avx2", "neon"] | None
    """The vectors of the fused kernels, on which their results depend; None is the plain form."""
    reason: str
    """Why it is the plain one."""
    activations: Literal["fp32", "bf16"]
    """As what feature maps are kept for the backward pass, on which results depend too."""


class LaunchPlan(Frozen):
    """One launch, derived from a `RunConfig` and facts about the host; the same for each of its attempts."""

    world_size: int
    nodes: int
    device: Literal["CPU", "Ascend"]
    threads: int | None
    """Kernel threads per process on a CPU."""
    jit_level: str | None
    kernels: KernelsPlan
    # Fields that only training uses are empty, 0 or 1 for other tasks.
    buckets: Annotated[tuple[BucketPlan, ...], Field(strict=False)]
    accumulation: int
    num_classes: int
    steps_per_epoch: int
    total_steps: int
    """Steps of all epochs, which the schedule spans."""
    last_step: int
    """Steps after which the run ends."""
    peak_lr: float
    eval_steps: int
    graphs: Annotated[tuple[GraphPlan, ...], Field(strict=False)]
    parameters: int
    trained_parameters: int
    macs: int
    """Multiply-accumulates of one image's forward pass."""
    dataset: DatasetFacts

    @property
    def cores(self) -> int | None:
        """Cores that the processes of one node see, on a CPU: through oneDNN, numerics depend on their number."""
        return None if self.threads is None else self.threads * self.world_size // self.nodes
