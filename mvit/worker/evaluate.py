"""Exact evaluation, as a task and within training: sums and counts over shards without duplicates, divided once."""

from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import mindspore as ms
import numpy as np
from mindspore import nn, ops

from mvit.config import EvaluateTask
from mvit.files import write_json
from mvit.plan import MAX_LOGITS, GraphPlan
from mvit.rundir.exported import exported_form
from mvit.rundir.frozen import Run
from mvit.rundir.predictions import BINS, Predictions, calibration_error, write_predictions
from mvit.rundir.result import EvaluatedWeights, EvaluateResult, write_result
from mvit.rundir.status import Stage
from mvit.worker import device
from mvit.worker.compile import Compiled, blank_batch, compile_graphs
from mvit.worker.entry_cell import EntryCell
from mvit.worker.exported import Model, open_exported
from mvit.worker.heartbeat import Heartbeat
from mvit.worker.input import sampler
from mvit.worker.input.loader import Batch
from mvit.worker.meters import must_be_finite
from mvit.worker.session import Session, open_session

CHUNK = 2048
"""Images whose logits are added up over the workers at once."""


def evaluate(run: Run, *, rank: int, heartbeat: Heartbeat) -> None:
    """Evaluate the checkpoint that the task names. Rank 0 writes its files, and result.json last."""
    config = run.config
    assert isinstance(config.task, EvaluateTask)
    session = open_session(run, rank=rank, heartbeat=heartbeat)
    step, weights, compiled = _prepare(session, config.task)

    heartbeat.stage(Stage.EVALUATE)
    evaluation = evaluate_network(session, step)
    predictions = all_predictions(session, evaluation)
    session.loader.close()
    if rank > 0:
        return
    must_be_finite(evaluation.metrics(), step=0)
    metrics = {**evaluation.metrics(), **compiled.metrics()}
    metrics["perf/peak_rss_mb"] = device.peak_rss_mb()
    session.journal.metrics(metrics, step=0, epoch=0)
    write_held_out(session, evaluation, predictions)
    session.journal.close()
    result = EvaluateResult(
        task="evaluate",
        metrics=metrics,
        graphs=compiled.seconds,
        correct1=evaluation.correct1,
        correct5=evaluation.correct5,
        count=evaluation.count,
        weights=weights,
    )
    write_result(run.folder, result)


Step = Callable[[ms.Tensor, ms.Tensor, ms.Tensor], tuple[ms.Tensor, ms.Tensor, ms.Tensor]]
"""One batch: images (B, S, S, 3) uint8, labels (B,), mask (B,) -> sums (3,), logits (B, K), classes (B,) int32.

The sums are those of cross entropy (not smoothed), of hits at 1 and of hits at 5, over the samples not masked. The
classes are those predicted.
"""


def _prepare(session: Session, task: EvaluateTask) -> tuple[Step, EvaluatedWeights, Compiled]:
    """What evaluates a batch, with which weights, and how its graphs came to be; an exported network has none."""
    num_classes, checkpoint = session.run.plan.num_classes, Path(task.checkpoint)
    if form := exported_form(checkpoint):
        model = open_exported(checkpoint, form, threads=session.run.plan.threads)
        return ExportedStep(model, num_classes=num_classes), "exported", Compiled({}, cached=False)
    weights = session.load(task)
    step = EvaluateStep(session.net, normalise=session.normalise, num_classes=num_classes)
    session.heartbeat.stage(Stage.COMPILE)
    compiled = compile_graphs(session, evaluate=step)
    step.set_train(False)
    return step, weights.which, compiled


class Score(nn.Cell):
    """What a `Step` returns, from logits (B, K), labels (B,) and mask (B,)."""

    def __init__(self, *, num_classes: int) -> None:
        super().__init__(auto_prefix=False)
        self.top = min(5, num_classes)

    def construct(self, logits, labels, mask):
        labels = ops.expand_dims(labels, 1)
        loss = -ops.gather_elements(ops.log_softmax(logits, -1), 1, labels)
        _, best = ops.topk(logits, self.top)
        hits = ops.cast(ops.equal(best, labels), ms.float32)
        rows = ops.stack((ops.squeeze(loss, 1), hits[:, 0], ops.reduce_sum(hits, 1)))
        return ops.reduce_sum(rows * mask, 1), logits, best[:, 0]


class EvaluateStep(EntryCell):
    """A `Step` of a network."""

    def __init__(self, net: nn.Cell, *, normalise: nn.Cell, num_classes: int) -> None:
        super().__init__()
        self.net = net
        self.normalise = normalise
        self.score = Score(num_classes=num_classes)

    def planned(self, graph: GraphPlan) -> tuple[nn.Cell, tuple[ms.Tensor, ...]]:
        """Itself, and inputs of a planned graph's shapes."""
        assert graph.images is not None
        self.set_train(False)
        return self, (*blank_batch(graph.images), ms.Tensor(np.ones(graph.images[0], np.float32)))

    def construct(self, images, labels, mask):
        return self.score(self.net(self.normalise(images), ops.zeros((), ms.int32)), labels, mask)


class ExportedStep:
    """A `Step` of an exported network, which normalises images itself."""

    def __init__(self, model: Model, *, num_classes: int) -> None:
        self.model = model
        self.score = Score(num_classes=num_classes)

    def __call__(self, images: ms.Tensor, labels: ms.Tensor, mask: ms.Tensor) -> tuple[ms.Tensor, ms.Tensor, ms.Tensor]:
        return self.score(ms.Tensor(self.model(images.asnumpy())), labels, mask)


@dataclass(frozen=True)
class Evaluation:
    """Sums over all samples; `confusion[t, p]` counts samples of class t predicted as p."""

    loss_sum: float
    correct1: int
    correct5: int
    count: int
    confusion: np.ndarray
    reliability: np.ndarray
    """As `Predictions.reliability` returns it."""
    shard: Predictions | None
    """Of the samples of this worker alone; None where they are too many."""

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
        return {
            f"{prefix}loss": self.loss,
            f"{prefix}acc1": self.acc1,
            f"{prefix}acc5": self.acc5,
            f"{prefix}ece": calibration_error(self.reliability),
        }


def evaluate_network(session: Session, step: Step) -> Evaluation:
    """Evaluate a network, in its mode of evaluation, on the validation images; every worker must call this."""
    plan, source = session.run.plan, session.val_source

    def add_up(vector: np.ndarray) -> np.ndarray:
        session.heartbeat.mark()
        return session.workers.sum(vector)

    shard = sampler.shard(len(source.labels), rank=session.rank, world_size=plan.world_size)
    batch_size = session.run.config.eval_batch_size
    batches = session.loader.evaluate(source, shard, batch_size=batch_size, num_batches=plan.eval_steps)
    keep = len(source.labels) * plan.num_classes <= MAX_LOGITS
    return evaluate_batches(step, session.in_step(batches), num_classes=plan.num_classes, add_up=add_up, keep=keep)


def evaluate_batches(
    step: Step,
    batches: Iterable[Batch],
    *,
    num_classes: int,
    add_up: Callable[[np.ndarray], np.ndarray],
    keep: bool = True,
) -> Evaluation:
    """Evaluate this worker's shard, and `keep` its logits; `add_up` adds a float32 vector over all workers.

    Counts are exact up to 2^24 samples (float32).
    """
    sums, reliability = np.zeros(3, np.float64), np.zeros((3, BINS), np.float64)
    confusion = np.zeros((num_classes, num_classes), np.float32)
    kept = [Predictions(np.zeros((0, num_classes), np.float32), np.zeros(0, np.int32))]
    count = 0
    for batch in batches:
        totals, logits, classes = step(ms.Tensor(batch.images), ms.Tensor(batch.labels), ms.Tensor(batch.mask))
        sums += totals.asnumpy()  # synchronises
        real = batch.mask > 0
        found = Predictions(logits.asnumpy()[real], batch.labels[real])
        np.add.at(confusion, (found.labels, classes.asnumpy()[real]), 1)
        reliability += found.reliability()
        count += len(found.labels)
        if keep:
            kept.append(found)
    total = add_up(np.concatenate([sums, [count], reliability.ravel(), confusion.ravel()]).astype(np.float32))
    end = 4 + reliability.size
    return Evaluation(
        loss_sum=float(total[0]),
        correct1=round(float(total[1])),
        correct5=round(float(total[2])),
        count=round(float(total[3])),
        confusion=total[end:].reshape(num_classes, num_classes).round().astype(np.int64),
        reliability=total[4:end].reshape(reliability.shape).astype(np.float64),
        shard=Predictions.joined(kept) if keep else None,
    )


def all_predictions(session: Session, evaluation: Evaluation) -> Predictions | None:
    """Those of every worker, in the order of the set, or None where they are too many; every worker must call this."""
    shard, labels = evaluation.shard, session.val_source.labels
    if shard is None or session.workers.world_size == 1:
        return shard
    table = np.zeros((len(labels), shard.logits.shape[1]), np.float32)
    table[sampler.shard(len(labels), rank=session.rank, world_size=session.workers.world_size)] = shard.logits
    for start in range(0, len(labels), CHUNK):
        session.heartbeat.mark()
        rows = table[start : start + CHUNK]
        rows[...] = session.workers.sum(rows.ravel()).reshape(rows.shape)  # with zeros, which is exact
    return Predictions(table, labels)


def write_held_out(session: Session, evaluation: Evaluation, predictions: Predictions | None) -> None:
    """confusion.json and predictions.npz; a disk that is full costs the file, not the run, and leaves no older one."""
    folder = session.run.folder
    write: dict[Path, Callable[[Path], None]] = {
        folder.confusion: lambda path: write_json(path, {"counts": evaluation.confusion.tolist()})
    }
    if predictions is None:
        session.journal.event("not_written", file=folder.predictions.name, reason=f"more than {MAX_LOGITS:,} logits")
    else:
        write[folder.predictions] = lambda path: write_predictions(path, predictions)
    for path, content in write.items():
        try:
            content(path)
        except OSError as error:
            with suppress(OSError):
                path.unlink(missing_ok=True)
            session.journal.event("not_written", file=path.name, reason=error.strerror)
