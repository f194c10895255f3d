"""Export: a network as files of other formats, checked against its checkpoint on the validation images."""

import math
import time
from dataclasses import dataclass
from pathlib import Path

import mindspore as ms
import mindspore.onnx
import numpy as np
from mindspore import nn, ops

from mvit.config import ExportFormat, ExportRun, ImagesConfig
from mvit.files import file_digest
from mvit.models import mobilevit
from mvit.rundir.exported import FILES, Exported, ImageInput, write_about
from mvit.rundir.frozen import Run
from mvit.rundir.result import ExportResult, write_result
from mvit.rundir.status import Stage
from mvit.worker import checkpoint, device
from mvit.worker.compile import compile_graphs
from mvit.worker.evaluate import EvaluateStep
from mvit.worker.exported import INPUT, OUTPUT, Model, open_exported
from mvit.worker.heartbeat import Heartbeat
from mvit.worker.images import Normalise
from mvit.worker.input import sampler
from mvit.worker.session import Session, open_session


class ExportMismatch(Exception):
    """A file that was written computes something else than its checkpoint."""


def export(run: Run, config: ExportRun, *, rank: int, heartbeat: Heartbeat) -> None:
    """Write the formats that the task names, and check them; raises `ExportMismatch`.

    Rank 0 writes, and result.json last; each worker checks its share of the images.
    """
    session = open_session(run, rank=rank, heartbeat=heartbeat)
    weights = session.load(config.task)
    step = EvaluateStep(session.net, normalise=session.normalise, num_classes=run.plan.num_classes)

    heartbeat.stage(Stage.COMPILE)
    compiled = compile_graphs(session, evaluate=step)
    written = _write(session, config, weights) if rank == 0 else {}
    session.workers.sum(np.zeros(1, np.float32))  # the others wait for the files

    heartbeat.stage(Stage.EVALUATE)
    models: dict[ExportFormat, Model] = {
        form: open_exported(run.folder.exported / FILES[form], form, threads=run.plan.threads)
        for form in config.task.formats
    }
    differences = _compare(session, step, models)
    session.loader.close()
    if rank > 0:
        return
    metrics = {f"export/{form}_s": seconds for form, seconds in written.items()}
    for form, difference in differences.items():
        metrics |= {f"export/{form}_{name}": value for name, value in difference.metrics().items()}
    metrics |= {**compiled.metrics(), "perf/peak_rss_mb": device.peak_rss_mb()}
    session.journal.metrics(metrics, step=0, epoch=0)
    session.journal.close()
    for form, difference in differences.items():
        if not difference.logits <= config.task.tolerance:
            raise ExportMismatch(
                f"the logits of {FILES[form]} differ by {difference.logits:.2g} from the checkpoint's"
                f" (task.tolerance={config.task.tolerance:g})"
            )
    count = len(session.val_source.labels)
    result = ExportResult(task="export", metrics=metrics, graphs=compiled.seconds, count=count, weights=weights.which)
    write_result(run.folder, result)


def _write(session: Session, config: ExportRun, weights: checkpoint.Weights) -> dict[ExportFormat, float]:
    """Write each format, and model.json; returns the seconds that each took."""
    exportable = Exportable(session, weights)
    folder = session.run.folder.exported
    folder.mkdir(exist_ok=True)
    seconds: dict[ExportFormat, float] = {}
    for form in config.task.formats:
        began = time.perf_counter()
        exportable.write(folder / FILES[form], form, batch_size=_batch_size(config))
        seconds[form] = time.perf_counter() - began
        session.heartbeat.mark()
    write_about(folder, _about(session.run, config, weights))
    return seconds


@ops.constexpr
def bilinear(source: int, target: int) -> ms.Tensor:
    """(source, target): the share of each pixel of a row in those of a row of another length, as in ops.interpolate."""
    places = np.maximum((np.arange(target) + 0.5) * source / target - 0.5, 0.0)
    first = np.minimum(places.astype(np.int64), source - 1)
    weights = np.zeros((source, target), np.float32)
    np.add.at(weights, (first, np.arange(target)), 1.0 - (places - first))
    np.add.at(weights, (np.minimum(first + 1, source - 1), np.arange(target)), places - first)
    return ms.Tensor(weights)


class ExportedBlock(mobilevit.MobileViTBlock):
    """Resizes by two matrix products: MindSpore 2.10 writes its own operator neither as ONNX nor for any batch."""

    def resize(self, x, height, width):
        _, channels, rows, columns = x.shape
        x = ops.matmul(ops.reshape(x, (-1, columns)), bilinear(columns, width))
        x = ops.transpose(ops.reshape(x, (-1, channels, rows, width)), (0, 1, 3, 2))
        x = ops.matmul(ops.reshape(x, (-1, rows)), bilinear(rows, height))
        return ops.transpose(ops.reshape(x, (-1, channels, width, height)), (0, 1, 3, 2))


class ExportedNetwork(mobilevit.MobileViT):
    block = ExportedBlock


class Exportable(nn.Cell):
    """The network in its plain form, which other programs can run: images (B, S, S, 3) uint8 -> logits."""

    def __init__(self, session: Session, weights: checkpoint.Weights) -> None:
        super().__init__(auto_prefix=False)
        config, plan = session.run.config, session.run.plan
        self.size = config.data.image_size
        self.net = ExportedNetwork(config.model, num_classes=plan.num_classes)
        device.cast_network(self.net, config.precision)
        checkpoint.load(self.net, weights.tensors, source=weights.source)
        self.normalise = Normalise(config.data)
        self.is_half = config.precision.kind != "fp32"
        self.set_train(False)

    def construct(self, images):
        logits = self.net(self.normalise(images), ops.zeros((), ms.int32))
        # MindSpore 2.10 leaves an ONNX output that is a Cast without its name; this is exact, and not optimised away.
        return ops.neg(ops.neg(logits)) if self.is_half else logits

    def write(self, path: Path, form: ExportFormat, *, batch_size: int | None) -> None:
        """Write a file; without a batch size, it takes any number of images."""
        images = ms.Tensor(shape=[batch_size, self.size, self.size, 3], dtype=ms.uint8)
        if batch_size is not None:
            images = ms.Tensor(np.zeros((batch_size, self.size, self.size, 3), np.uint8))
        path.unlink(missing_ok=True)  # of an attempt before; MindSpore makes it read-only
        match form:
            case "mindir":
                ms.export(self, images, file_name=str(path.with_suffix("")), file_format="MINDIR")
            case "onnx":
                names = {"input_names": [INPUT], "output_names": [OUTPUT]}
                mindspore.onnx.export(self, images, file_name=str(path), **names)
        path.chmod(0o644)


@dataclass(frozen=True)
class Difference:
    """How far a file's answers are from the checkpoint's, over all images."""

    logits: float = 0.0
    """The largest one of a logit; NaN where one is not a number."""
    same_top1: int = 0
    """Images whose first class is the same."""
    count: int = 0

    def with_batch(self, logits: np.ndarray, expected: np.ndarray) -> "Difference":
        same = (logits.argmax(1) == expected.argmax(1)).sum()
        largest = np.maximum(self.logits, np.abs(logits - expected).max(initial=0.0))  # keeps NaN
        return Difference(float(largest), self.same_top1 + int(same), self.count + len(logits))

    def metrics(self) -> dict[str, float]:
        """What the journal, which holds no NaN, has of it."""
        largest = {"max_diff": self.logits} if math.isfinite(self.logits) else {}
        return {**largest, "same_top1_pct": 100.0 * self.same_top1 / self.count}


def _compare(session: Session, step: EvaluateStep, models: dict[ExportFormat, Model]) -> dict[ExportFormat, Difference]:
    """Each model against the network, on the validation images; every worker must call this."""
    plan, source = session.run.plan, session.val_source
    shard = sampler.shard(len(source.labels), rank=session.rank, world_size=plan.world_size)
    size = session.run.config.eval_batch_size
    step.set_train(False)
    differences: dict[ExportFormat, Difference] = {form: Difference() for form in models}
    batches = session.loader.evaluate(source, shard, batch_size=size, num_batches=plan.eval_steps)
    for batch in session.in_step(batches):
        _, logits, _ = step(ms.Tensor(batch.images), ms.Tensor(batch.labels), ms.Tensor(batch.mask))
        real = batch.mask > 0
        expected = logits.asnumpy()[real]
        for form, model in models.items():
            differences[form] = differences[form].with_batch(model(batch.images)[real], expected)
        session.heartbeat.mark()
    return {form: _of_all(session, difference) for form, difference in differences.items()}


def _of_all(session: Session, difference: Difference) -> Difference:
    """That of all workers, on rank 0."""
    values = np.array([difference.logits, difference.same_top1, difference.count], np.float32)
    logits, same_top1, count = np.stack([one[0] for one in session.workers.gather([values])]).T
    return Difference(float(logits.max()), round(float(same_top1.sum())), round(float(count.sum())))


def _batch_size(config: ExportRun) -> int | None:
    """That the network is written for; None for any."""
    return None if config.task.dynamic_batch else config.task.batch_size


def _about(run: Run, config: ExportRun, weights: checkpoint.Weights) -> Exported:
    data = config.data
    return Exported(
        model=config.model.name,
        input=ImageInput(
            name=INPUT,
            dtype="uint8",
            layout="NHWC",
            batch_size=_batch_size(config),
            size=data.image_size,
            resize_short_side=short_side(data),
            eval_crop_fraction=data.eval_crop_fraction,
            interpolation=data.interpolation,
            antialias=data.antialias,
        ),
        output=OUTPUT,
        class_names=run.plan.dataset.class_names,
        source=str(weights.source),
        sha256={form: file_digest(run.folder.exported / FILES[form]) for form in config.task.formats},
    )


def short_side(data: ImagesConfig) -> int:
    """To which an image is resized in evaluation, as `transforms.center` does."""
    return math.floor(data.image_size / data.eval_crop_fraction + 1e-6)
