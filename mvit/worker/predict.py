"""Predictions for image files: the most probable classes of each, and a report of those that cannot be read."""

import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import TextIO

import mindspore as ms
import numpy as np

from mvit.config import PredictRun
from mvit.files import as_utf8
from mvit.rundir.answers import Answer, Guess
from mvit.rundir.frozen import Run
from mvit.rundir.result import PredictResult, write_result
from mvit.rundir.status import Stage
from mvit.rundir.stop import read_stop
from mvit.worker import device
from mvit.worker.compile import compile_graphs
from mvit.worker.evaluate import EvaluateStep
from mvit.worker.heartbeat import Heartbeat
from mvit.worker.input import sampler
from mvit.worker.input.loader import Batch
from mvit.worker.input.prepare import UnreadableImage
from mvit.worker.meters import NonFinite
from mvit.worker.session import Session, open_session
from mvit.worker.stop import Stopped

WARM_BATCHES = 2
"""First batches, which do not count towards the throughput."""


def predict(run: Run, config: PredictRun, *, rank: int, heartbeat: Heartbeat) -> None:
    """Predict the images that the task names; each worker has its share. Rank 0 writes result.json last.

    Raises `UnreadableImage` after the last image if one could not be read and the task is strict.
    """
    session = open_session(run, rank=rank, heartbeat=heartbeat)
    weights = session.load(config.task)
    step = EvaluateStep(session.net, normalise=session.normalise, num_classes=run.plan.num_classes)

    heartbeat.stage(Stage.COMPILE)
    compiled = compile_graphs(session, evaluate=step)

    heartbeat.stage(Stage.EVALUATE)
    share = run.folder.answers_of(rank)
    with share.open("w", encoding="utf-8") as file:
        unreadable, images_per_s = _answer(session, config, step, file=file)
    session.loader.close()
    # The sums are known once every worker has written its share.
    unreadable, images_per_s = session.workers.sum(np.array([unreadable, images_per_s], np.float32)).tolist()
    if rank > 0:
        return
    _join_answers(run)
    count = run.plan.dataset.num_val - round(unreadable)
    metrics = {**compiled.metrics(), "predict/images": count, "predict/unreadable": unreadable}
    if images_per_s:
        metrics["perf/images_per_s"] = images_per_s
    metrics["perf/peak_rss_mb"] = device.peak_rss_mb()
    session.journal.metrics(metrics, step=0, epoch=0)
    session.journal.close()
    if unreadable and config.task.strict:
        raise UnreadableImage(
            f"{unreadable:.0f} of {run.plan.dataset.num_val} images cannot be read (task.strict=true)"
        )
    write_result(
        run.folder,
        PredictResult(
            task="predict",
            metrics=metrics,
            graphs=compiled.seconds,
            count=count,
            unreadable=round(unreadable),
            weights=weights.which,
        ),
    )


def _answer(session: Session, config: PredictRun, step: EvaluateStep, *, file: TextIO) -> tuple[int, float]:
    """Write a line for each image of this worker; returns how many could not be read, and images per second.

    The first batches do not count, and the rate of fewer is 0.
    """
    plan, source, size = session.run.plan, session.val_source, config.task.batch_size
    shard = sampler.shard(len(source.labels), rank=session.rank, world_size=plan.world_size)
    batches = session.loader.evaluate(
        source, shard, batch_size=size, num_batches=plan.eval_steps, reports_unreadable=True
    )
    step.set_train(False)
    unreadable, began = 0, 0.0
    for number, batch in enumerate(batches):
        session.heartbeat.mark()  # as in Session.in_step
        if session.workers.sum(np.array([bool(read_stop(session.run.folder))], np.float32)) > 0:
            raise Stopped(f"stopped after {number} batches")
        if number == WARM_BATCHES:
            began = time.perf_counter()
        _, logits, _ = step(ms.Tensor(batch.images), ms.Tensor(batch.labels), ms.Tensor(batch.mask))
        chunk = shard[number * size : (number + 1) * size]
        for answer in _answers(session, config, chunk, logits=logits.asnumpy(), batch=batch):  # synchronises
            file.write(f"{answer.line()}\n")
        unreadable += len(batch.unreadable)
        session.heartbeat.step(number + 1)
    timed = len(shard) - WARM_BATCHES * size
    return unreadable, timed / (time.perf_counter() - began) if timed > 0 else 0.0


def _join_answers(run: Run) -> None:
    """Make answers.jsonl of the workers' shares, which take turns in the order of the images."""
    folder, ranks = run.folder, range(run.plan.world_size)
    with ExitStack() as stack:
        answers = stack.enter_context(folder.answers.open("w", encoding="utf-8"))
        shares = [stack.enter_context(folder.answers_of(rank).open(encoding="utf-8")) for rank in ranks]
        for index in range(run.plan.dataset.num_val):
            answers.write(shares[index % len(shares)].readline())
    for rank in ranks:
        folder.answers_of(rank).unlink()


def _answers(
    session: Session, config: PredictRun, indices: np.ndarray, *, logits: np.ndarray, batch: Batch
) -> Iterator[Answer]:
    """Of each image of a batch; raises `NonFinite` for a network that computes no number."""
    names = session.run.plan.dataset.class_names
    logits = logits[: len(indices)].astype(np.float64)
    if not np.isfinite(logits).all():
        raise NonFinite("the network computes logits that are not finite; its weights may be of another precision")
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities = powers / powers.sum(axis=1, keepdims=True)
    best = np.argsort(-probabilities, axis=1, kind="stable")[:, : config.task.top]
    for row, index in enumerate(indices.tolist()):
        path = as_utf8(session.val_source.sample(index).name)
        if index in batch.unreadable:
            yield Answer(image=path, error=batch.unreadable[index])
            continue
        guesses = [
            Guess(name=names[place], index=place, probability=float(f"{probabilities[row, place]:.6g}"))
            for place in best[row].tolist()
        ]
        yield Answer(image=path, classes=tuple(guesses))
