"""One training step as the host runs it: which graphs, in which order, on which tensors."""

from collections.abc import Iterator

import mindspore as ms
import numpy as np
from mindspore import nn

from mvit.plan import GraphPlan
from mvit.worker.compile import blank_batch
from mvit.worker.input.loader import Batch
from mvit.worker.input.mix import UNMIXED
from mvit.worker.step_graphs import Accumulate, ApplyAccumulated, Ema, Gradients, TrainStep


class RunStep:
    """A single graph, or one graph per micro-batch and one for the update; each once for every shape of a batch."""

    def __init__(self, gradients: Gradients, update: nn.Cell, ema: Ema | None, *, accumulation: int) -> None:
        self.accumulate = Accumulate(gradients) if accumulation > 1 else None
        self.apply = (
            ApplyAccumulated(self.accumulate, update, ema) if self.accumulate else TrainStep(gradients, update, ema)
        )
        self.net = gradients.net
        self.cells = [cell for cell in (self.accumulate, self.apply) if cell is not None]
        for cell in self.cells:
            cell.set_train(True)

    def planned(self, graph: GraphPlan) -> tuple[nn.Cell, tuple[ms.Tensor, ...]]:
        """The cell of a planned graph, and inputs of its shapes."""
        self.cells[0].set_train(True)
        rates = (ms.Tensor(0.0, ms.float32), ms.Tensor(0.0, ms.float32))
        if graph.images is None:
            return self.apply, rates
        inputs = (*blank_batch(graph.images), ms.Tensor(UNMIXED), ms.Tensor(0, ms.int32))
        return (self.accumulate, inputs) if self.accumulate else (self.apply, (*inputs, *rates))

    def compiled(self) -> int:
        """Number of graphs compiled so far."""
        return sum(len(cell.compile_cache) for cell in self.cells)

    def __call__(
        self, batches: Iterator[Batch], draws: list[tuple[np.ndarray, int]], *, lr: float, decay: float
    ) -> tuple[ms.Tensor, ms.Tensor]:
        """Take a batch for each pair of mixing and dropout key.

        Returns the loss sum over the global batch and the gradient norm, on the device.
        """
        rates = (ms.Tensor(lr, ms.float32), ms.Tensor(decay, ms.float32))
        # Evaluation in between switches the network's mode, which is part of a graph's identity. Setting it walks all
        # cells, which takes a millisecond.
        if not self.net.training:
            self.cells[0].set_train(True)
        for mix, key in draws:
            inputs = (*_tensors(next(batches)), ms.Tensor(mix), ms.Tensor(key, ms.int32))
            if self.accumulate is None:
                return self.apply(*inputs, *rates)
            self.accumulate(*inputs)
        return self.apply(*rates)


def _tensors(batch: Batch) -> tuple[ms.Tensor, ms.Tensor]:
    """Images and labels; copies, since the loader reuses its memory."""
    return ms.Tensor(batch.images), ms.Tensor(batch.labels)
