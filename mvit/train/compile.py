"""The compilation of a graph, timed apart from its first step."""

import time

import mindspore as ms
from mindspore import nn


def compile_graph(cell: nn.Cell, *inputs: ms.Tensor) -> float:
    """Compile for the shapes and types of the inputs, without running; returns seconds."""
    began = time.perf_counter()
    cell.compile(*inputs)
    return time.perf_counter() - began
