"""One update as the host runs it: which graphs, in which order, on which tensors."""

import time
from collections.abc import Iterator

import mindspore as ms
import numpy as np
from mindspore import nn

from mvit.plan import GraphPlan
from mvit.worker.input.loader import Batch
from mvit.worker.input.mix import UNMIXED
from mvit.worker.step_graphs import Accumulate, ApplyAccumulated, Ema, Gradients, TrainStep, Update


class RunStep:
    """A single graph, or one graph per micro-batch and one for the update; each once for every shape of a batch."""

    def __init__(self, gradients: Gradients, update: Update, ema: Ema | None, *, accumulation: int) -> None:
        self.accumulate = Accumulate(gradients) if accumulation > 1 else None
        self.apply = (
            ApplyAccumulated(self.accumulate, update, ema) if self.accumulate else TrainStep(gradients, update, ema)
        )
        self.cells = [cell for cell in (self.accumulate, self.apply) if cell is not None]
        for cell in self.cells:
            cell.set_train(True)

    def compile(self, graph: GraphPlan) -> float:
        """Compile one planned graph; returns seconds."""
        rates = (ms.Tensor(0.0, ms.float32), ms.Tensor(0.0, ms.float32))
        if graph.images is None:
            return compile_graph(self.apply, *rates)
        inputs = (*tensors(blank_batch(graph.images)), ms.Tensor(UNMIXED), ms.Tensor(0, ms.int32))
        return (
            compile_graph(self.accumulate, *inputs) if self.accumulate else compile_graph(self.apply, *inputs, *rates)
        )

    def compiled(self) -> int:
        """Number of graphs that were compiled so far."""
        return sum(len(cell.compile_cache) for cell in self.cells)

    def __call__(
        self, batches: Iterator[Batch], draws: list[tuple[np.ndarray, int]], *, lr: float, decay: float
    ) -> tuple[ms.Tensor, ms.Tensor]:
        """Take a batch for each pair of mixing and dropout key.

        Returns the loss sum over the global batch and the gradient norm, on the device.
        """
        rates = (ms.Tensor(lr, ms.float32), ms.Tensor(decay, ms.float32))
        # Evaluation in between switches the network's mode, which is part of a graph's identity.
        self.cells[0].set_train(True)
        for mix, key in draws:
            inputs = (*tensors(next(batches)), ms.Tensor(mix), ms.Tensor(key, ms.int32))
            if self.accumulate is None:
                return self.apply(*inputs, *rates)
            self.accumulate(*inputs)
        return self.apply(*rates)


def compile_graph(cell: nn.Cell, *inputs: ms.Tensor) -> float:
    """Compile for the shapes and types of the inputs, without running; returns seconds."""
    began = time.perf_counter()
    cell.compile(*inputs)
    return time.perf_counter() - began


def blank_batch(images: tuple[int, int, int, int]) -> Batch:
    """A batch of zeros, of a planned shape (B, S, S, 3)."""
    count = images[0]
    return Batch(np.zeros(images, np.uint8), np.zeros(count, np.int32), np.ones(count, np.float32))


def tensors(batch: Batch) -> tuple[ms.Tensor, ms.Tensor]:
    """Images and labels; copies, since the loader uses its memory again."""
    return ms.Tensor(batch.images), ms.Tensor(batch.labels)
