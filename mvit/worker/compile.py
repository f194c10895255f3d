"""Compilation of the planned graphs, each before the first step that runs it."""

import time
from collections.abc import Iterator, Sequence
from typing import Protocol

import mindspore as ms
import numpy as np
from mindspore import nn

from mvit.plan import GraphPlan


class Compilable(Protocol):
    """What runs planned graphs."""

    def planned(self, graph: GraphPlan) -> tuple[nn.Cell, tuple[ms.Tensor, ...]]:
        """The cell of a graph, and inputs of the shapes that it runs with."""
        ...


def compile_graphs(
    graphs: Sequence[GraphPlan], *, evaluate: Compilable, train: Compilable | None = None
) -> Iterator[tuple[str, float]]:
    """Compile each graph in turn, without running it; yields its name and the seconds it took."""
    for graph in graphs:
        owner = evaluate if graph.name == "evaluate" else train
        assert owner is not None, f"the plan has a graph that this task does not run: {graph.name}"
        cell, inputs = owner.planned(graph)
        began = time.perf_counter()
        cell.compile(*inputs)
        yield graph.name, time.perf_counter() - began


def blank_batch(images: tuple[int, int, int, int]) -> tuple[ms.Tensor, ms.Tensor]:
    """Images (B, S, S, 3) uint8 and labels (B,) int32, all zero."""
    return ms.Tensor(np.zeros(images, np.uint8)), ms.Tensor(np.zeros(images[0], np.int32))
