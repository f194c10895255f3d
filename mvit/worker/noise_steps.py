"""Steps on images of noise that are already in memory: for tasks that measure steps and need no data."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import repeat

import mindspore as ms
import numpy as np

from mvit.config import StepsRun
from mvit.plan import GraphPlan
from mvit.rundir.stop import read_stop
from mvit.schedule import scaled_lr
from mvit.worker.cells import StepRecipe, TrainCells, build_cells
from mvit.worker.compile import Compiled, compile_graphs
from mvit.worker.input.loader import Batch
from mvit.worker.input.mix import UNMIXED
from mvit.worker.session import Session
from mvit.worker.stop import Stopped

SEED = 0


@dataclass(frozen=True)
class NoiseSteps:
    """The cells of a session, and the steps that they take."""

    session: Session
    config: StepsRun
    cells: TrainCells

    @classmethod
    def build(cls, session: Session, config: StepsRun) -> "NoiseSteps":
        return cls(session, config, build_cells(session, StepRecipe(config.optimizer, config.scaling)))

    def compile(self) -> Compiled:
        return compile_graphs(self.session, train=self.cells.step, evaluate=self.cells.evaluate_step)

    def step(self, graph: GraphPlan) -> Callable[[], float]:
        """A step of a graph, as a function that waits for its end and returns the mean loss of an image.

        It ends with `Stopped` where a stop was requested.
        """
        assert graph.images is not None
        count, classes = graph.images[0], self.session.run.plan.num_classes
        random = np.random.default_rng(SEED + self.session.rank)
        batch = Batch(
            random.integers(0, 256, graph.images, np.uint8),
            random.integers(0, classes, count).astype(np.int32),
            np.ones(count, np.float32),
        )
        take = self._training(batch) if graph.mode == "train" else self._inference(batch)

        def step() -> float:
            if read_stop(self.session.run.folder):
                raise Stopped("stopped between two steps")
            return take()

        return step

    def _training(self, batch: Batch) -> Callable[[], float]:
        """As `train` takes it, and as a run of this global batch would set its rate."""
        optimizer, images = self.config.optimizer, len(batch.labels) * self.session.run.plan.world_size
        lr, batches = scaled_lr(optimizer, global_batch_size=images), repeat(batch)

        def step() -> float:
            loss_sum, _ = self.cells.step(batches, [(UNMIXED, 1)], lr=lr, decay=optimizer.weight_decay)
            return float(loss_sum.asnumpy()) / images  # synchronises

        return step

    def _inference(self, batch: Batch) -> Callable[[], float]:
        """As `predict` and `evaluate` take it: from images on the host to logits on the host."""
        cell = self.cells.evaluate_step

        def step() -> float:
            if self.session.net.training:
                cell.set_train(False)
            sums, logits, _ = cell(ms.Tensor(batch.images), ms.Tensor(batch.labels), ms.Tensor(batch.mask))
            logits.asnumpy()  # synchronises
            return float(sums.asnumpy()[0]) / len(batch.labels)

        return step
