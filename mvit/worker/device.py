"""The device and the other workers."""

import os
import resource
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from typing import Literal

import mindspore as ms
import numpy as np
from mindspore import nn, ops
from mindspore.communication import get_rank, init

from mvit.config import Precision
from mvit.models.kernels.network import Freezable


def open_device(device: Literal["CPU", "Ascend"], *, threads: int | None, jit_level: str | None) -> None:
    """Graph mode on this process's device; `threads` limits the kernels of a CPU."""
    ms.set_context(mode=ms.GRAPH_MODE)
    if device == "Ascend":
        ms.set_device("Ascend", int(os.environ.get("DEVICE_ID", "0")))
    else:
        ms.set_device("CPU")
    if threads is not None:
        # Nothing else: two dispatch threads more than double the time of a step on two cores (205 to 540 ms).
        ms.device_context.cpu.op_tuning.threads_num(threads)
    if jit_level is not None:
        ms.set_context(jit_config={"jit_level": jit_level})


def join(world_size: int) -> None:
    """Meet the other workers; in msrun's scheduler process this never returns."""
    if world_size > 1:
        init()


class _Sum(nn.Cell):
    def __init__(self) -> None:
        super().__init__()
        self.all_reduce = ops.AllReduce(ops.ReduceOp.SUM)

    def construct(self, x):
        return self.all_reduce(x)


class Workers:
    """What the workers do together, outside the training step."""

    def __init__(self, world_size: int) -> None:
        self.world_size = world_size
        self._sum = _Sum() if world_size > 1 else None

    def sum(self, vector: np.ndarray) -> np.ndarray:
        """The float32 vector added over all workers; every worker must call this."""
        if self._sum is None:
            return vector
        return self._sum(ms.Tensor(vector)).asnumpy()  # synchronises

    def gather(self, arrays: list[np.ndarray]) -> list[list[np.ndarray]]:
        """The float32 arrays of every worker, by rank; every worker must call this."""
        if self._sum is None:
            return [arrays]
        flat = np.concatenate([array.ravel() for array in arrays])
        table = np.zeros((self.world_size, flat.size), np.float32)
        table[get_rank()] = flat
        # A sum with zeros is exact, and the one collective that a CPU has for float32 of any size.
        rows = self.sum(table.ravel()).reshape(self.world_size, -1)
        ends = np.cumsum([array.size for array in arrays])[:-1]
        shapes = [array.shape for array in arrays]
        return [[p.reshape(s) for p, s in zip(np.split(row, ends), shapes, strict=True)] for row in rows]

    def average(self, parameters: list[ms.Parameter]) -> None:
        """Set each parameter to its mean over all workers, whose running statistics differ."""
        if self._sum is None:
            return
        flat = np.concatenate([parameter.asnumpy().ravel() for parameter in parameters])
        flat = self.sum(flat) / np.float32(self.world_size)
        pieces = np.split(flat, np.cumsum([parameter.size for parameter in parameters])[:-1])
        for parameter, piece in zip(parameters, pieces, strict=True):
            parameter.set_data(ms.Tensor(piece.reshape(parameter.shape)))


def cast_network(net: nn.Cell, precision: Precision) -> None:
    """Compute in the type of the precision, as far as its level says; weights and logits are always float32.

    O1: convolutions and Dense; O2: all but normalisation; O3: everything.
    """
    if precision.kind == "fp32":
        return
    half = ms.float16 if precision.kind == "fp16" else ms.bfloat16
    if precision.level != "O1":
        net.to_float(half)
    for _, cell in net.cells_and_names():
        if isinstance(cell, (nn.BatchNorm2d, nn.LayerNorm)) and precision.level != "O3":
            cell.to_float(ms.float32)
        elif isinstance(cell, (nn.Conv2d, nn.Dense)) and precision.level == "O1":
            cell.to_float(half)


def freeze(net: nn.Cell, patterns: Sequence[str]) -> None:
    """Exclude the parameters that match from training; a BatchNorm of frozen parameters keeps its statistics."""

    def frozen(parameter: ms.Parameter) -> bool:
        return any(fnmatchcase(parameter.name, pattern) for pattern in patterns)

    for parameter in net.get_parameters():
        if frozen(parameter):
            parameter.requires_grad = False
    for _, cell in net.cells_and_names():
        if isinstance(cell, nn.BatchNorm2d) and frozen(cell.gamma) and frozen(cell.beta):
            cell.use_batch_statistics = False
    for _, cell in net.cells_and_names():
        if isinstance(cell, Freezable):
            norms = [inner for _, inner in cell.cells_and_names() if isinstance(inner, nn.BatchNorm2d)]
            if any(norm.use_batch_statistics is False for norm in norms):
                cell.freeze_norm()


@contextmanager
def swapped(parameters: Sequence[ms.Parameter], others: Sequence[ms.Parameter]) -> Iterator[None]:
    """Give the parameters other values for a while: a second network would cost memory and another compilation."""
    own = [parameter.asnumpy().copy() for parameter in parameters]  # synchronises
    for parameter, other in zip(parameters, others, strict=True):
        parameter.set_data(ms.Tensor(other.asnumpy()))
    try:
        yield
    finally:
        for parameter, value in zip(parameters, own, strict=True):
            parameter.set_data(ms.Tensor(value))


def peak_rss_mb() -> float:
    """Largest resident memory of this process so far, MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
