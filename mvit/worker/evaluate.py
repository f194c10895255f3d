"""Exact evaluation: sums and counts over shards without padding duplicates, divided once."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

import mindspore as ms
import numpy as np
from mindspore import nn, ops

from mvit.worker.input.loader import Batch


class EvaluateStep(nn.Cell):
    """One batch: images (B, S, S, 3) uint8, labels (B,), mask (B,) -> sums (3,) float32 and predictions (B,) int32.

    The sums are those of cross entropy (not smoothed), of hits at 1 and of hits at 5, over the samples not masked.
    """

    def __init__(self, net: nn.Cell, *, normalise: nn.Cell, num_classes: int) -> None:
        super().__init__(auto_prefix=False)
        self.net = net
        self.normalise = normalise
        self.top = min(5, num_classes)

    def construct(self, images, labels, mask):
        logits = self.net(self.normalise(images), ops.zeros((), ms.int32))
        labels = ops.expand_dims(labels, 1)
        loss = -ops.gather_elements(ops.log_softmax(logits, -1), 1, labels)
        _, best = ops.topk(logits, self.top)
        hits = ops.cast(ops.equal(best, labels), ms.float32)
        rows = ops.stack((ops.squeeze(loss, 1), hits[:, 0], ops.reduce_sum(hits, 1)))
        return ops.reduce_sum(rows * mask, 1), best[:, 0]


@dataclass(frozen=True)
class Evaluation:
    """Sums over all samples; `confusion[t, p]` counts samples of class t predicted as p."""

    loss_sum: float
    correct1: int
    correct5: int
    count: int
    confusion: np.ndarray

    @property
    def loss(self) -> float:
        return self.loss_sum / self.count

    @property
    def acc1(self) -> float:
        """Percent."""
        return 100.0 * self.correct1 / self.count

    @property
    def acc5(self) -> float:
        """Percent."""
        return 100.0 * self.correct5 / self.count

    def metrics(self, *, prefix: str = "val/") -> dict[str, float]:
        return {f"{prefix}loss": self.loss, f"{prefix}acc1": self.acc1, f"{prefix}acc5": self.acc5}


class SumOverWorkers(Protocol):
    """Adds a float32 vector over all workers."""

    def __call__(self, vector: np.ndarray) -> np.ndarray: ...


def evaluate(step: EvaluateStep, batches: Iterable[Batch], *, num_classes: int, reduce: SumOverWorkers) -> Evaluation:
    """Evaluate this worker's shard and add the others'. Counts are exact up to 2^24 samples (float32)."""
    step.set_train(False)
    sums = np.zeros(3, np.float64)
    confusion = np.zeros((num_classes, num_classes), np.float32)
    count = 0
    for batch in batches:
        totals, predictions = step(ms.Tensor(batch.images), ms.Tensor(batch.labels), ms.Tensor(batch.mask))
        sums += totals.asnumpy()  # synchronises
        real = batch.mask > 0
        np.add.at(confusion, (batch.labels[real], predictions.asnumpy()[real]), 1)
        count += int(real.sum())
    total = reduce(np.concatenate([sums, [count], confusion.ravel()]).astype(np.float32))
    return Evaluation(
        loss_sum=float(total[0]),
        correct1=round(float(total[1])),
        correct5=round(float(total[2])),
        count=round(float(total[3])),
        confusion=total[4:].reshape(num_classes, num_classes).round().astype(np.int64),
    )
