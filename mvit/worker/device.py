"""The device, and what is done to parameters on it."""

import os
import resource
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from typing import Literal

import mindspore as ms
from mindspore import nn

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
