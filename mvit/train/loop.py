"""A training run, and an evaluation, from top to bottom."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import mindspore as ms
import numpy as np

from mvit.config import EvaluateTask, RunConfig
from mvit.models.mobilevit import MobileViT
from mvit.plan import LaunchPlan
from mvit.rundir import Journal, RunDir, write_json
from mvit.schedule import learning_rate
from mvit.train import checkpoint, device
from mvit.train.compile import compile_graph
from mvit.train.data import sampler
from mvit.train.data.loader import Batch, Loader
from mvit.train.data.source import open_sources
from mvit.train.evaluate import EvaluateStep, Evaluation, evaluate
from mvit.train.optim import AdamW, powers
from mvit.train.status import Status
from mvit.train.step import Accumulate, ApplyAccumulated, Gradients, TrainStep, Update

WARM_STEPS = 3
"""Steps whose time is left out of the throughput: kernels search for their thread count, caches fill."""


class NonFiniteLoss(Exception):
    """A loss or gradient norm that is not finite; the message names the steps."""


def _must_be_finite(metrics: dict[str, float], *, step: int) -> None:
    bad = [name for name, value in metrics.items() if not np.isfinite(value)]
    if bad:
        raise NonFiniteLoss(
            f"{', '.join(bad)} not finite at step {step}; lower optimizer.lr or precision.loss_scale, or clip"
        )


class NullJournal:
    """The journal of every rank but 0."""

    def metrics(self, metrics: dict[str, float], *, step: int, epoch: int) -> None: ...

    def event(self, event: str, **fields: object) -> None: ...

    def close(self) -> None: ...


def train(config: RunConfig, plan: LaunchPlan, folder: RunDir, *, rank: int, status: Status) -> None:
    """Train as planned. Rank 0 writes journal, checkpoints and, last of all, result.json."""
    journal = Journal(folder.journal) if rank == 0 else NullJournal()
    workers = device.Workers(plan.world_size)
    recipe, optimizer_config = config.train, config.optimizer

    status.stage("data")
    train_source, val_source = open_sources(config.data, plan.dataset)
    loader = Loader(config.data, augment=config.augment, seed=config.seed)

    status.stage("build")
    ms.set_seed(config.seed)
    net = MobileViT(config.model, num_classes=plan.num_classes)
    device.cast_network(net, config.precision)
    loss_scale = config.precision.loss_scale if config.precision.kind == "fp16" else 1.0
    gradients = Gradients(net, smoothing=recipe.label_smoothing, loss_scale=loss_scale)
    optimizer = AdamW(net.trainable_params(), optimizer_config)
    update = Update(
        optimizer,
        num_parts=plan.world_size * plan.accumulation,
        clip_norm=recipe.clip_norm,
        loss_scale=loss_scale,
        distributed=plan.world_size > 1,
    )
    step = Step(gradients, update, accumulation=plan.accumulation)
    evaluate_step = EvaluateStep(net, num_classes=plan.num_classes)
    statistics = [p for p in net.get_parameters() if p.name.endswith(("moving_mean", "moving_variance"))]

    def rates(index: int) -> tuple[float, float, float, float]:
        """Learning rate, decay and powers of the betas of a step."""
        lr = learning_rate(
            config.schedule,
            peak=optimizer_config.lr,
            step=index,
            steps_per_epoch=plan.steps_per_epoch,
            total_steps=plan.total_steps,
        )
        return lr, optimizer_config.weight_decay, *powers(optimizer_config, step=index)

    status.stage("compile")
    compile_s = step.compile(_blank(plan.per_device_batch_size, config.data.image_size), rates(0))
    compile_eval_s = _compile_evaluation(evaluate_step, config)
    compiled = {"perf/compile_s": compile_s, "perf/compile_eval_s": compile_eval_s}
    journal.metrics(compiled, step=0, epoch=0)

    status.stage("step")
    window = Window(global_batch_size=plan.global_batch_size)
    throughput = Throughput(global_batch_size=plan.global_batch_size)
    best: dict[str, float] = {"best/val_acc1": -1.0, "best/epoch": 0}
    final: dict[str, float] = {}
    last_step = 0
    for epoch in range(1, recipe.epochs + 1):
        batches = loader.train(train_source, _parts(config, plan, rank=rank, epoch=epoch), epoch=epoch)
        throughput.start(waited_s=loader.waited_s)
        for index in range((epoch - 1) * plan.steps_per_epoch, epoch * plan.steps_per_epoch):
            began = time.perf_counter()
            lr, *others = rates(index)
            keys = [sampler.dropout_key(config.seed, step=index, part=part) for part in _my_parts(plan, rank)]
            loss_sum, norm = step(batches, keys, (lr, *others))
            window.add(index, loss_sum)
            last_step = index + 1
            if index == 0:
                loss_sum.asnumpy()  # synchronises
                first_step_s = time.perf_counter() - began
                journal.metrics({"perf/first_step_s": first_step_s}, step=1, epoch=epoch)
            if last_step == WARM_STEPS:
                loss_sum.asnumpy()  # synchronises
                throughput.start(waited_s=loader.waited_s)
            elif last_step > WARM_STEPS:
                throughput.steps += 1
            if last_step % recipe.log_every_steps == 0 or last_step == plan.total_steps:
                logged = {"train/loss": window.close(), "train/lr": lr, "train/grad_norm": float(norm.asnumpy())}
                _must_be_finite(logged, step=last_step)
                journal.metrics(logged, step=last_step, epoch=epoch)
            status.step(last_step)
        loss_sum.asnumpy()  # synchronises, so that the epoch's time is that of its steps
        throughput.stop(waited_s=loader.waited_s)

        if epoch % recipe.eval_every_epochs and epoch != recipe.epochs:
            continue
        status.stage("evaluate")
        workers.average(statistics)
        found = _evaluate(evaluate_step, config, plan, loader, val_source, rank=rank, workers=workers)
        _must_be_finite(found.metrics(), step=last_step)
        improved = found.acc1 > best["best/val_acc1"]
        if improved:
            best = {"best/val_acc1": found.acc1, "best/epoch": epoch}
        final = {**found.metrics(), **best, **throughput.metrics(), "perf/peak_rss_mb": device.peak_rss_mb()}
        journal.metrics(final, step=last_step, epoch=epoch)
        if rank == 0:
            checkpoint.save(
                folder.checkpoints,
                tensors=checkpoint.state([net, optimizer]),
                step=last_step,
                meta={"epoch": epoch, "metrics": found.metrics(), "conventions": _conventions(config, plan)},
                tags=["last", "best"] if improved else ["last"],
            )
            if improved:
                _write_confusion(folder, found)
        status.stage("step")

    loader.close()
    journal.close()
    if rank == 0:
        result = {**final, **compiled, "perf/first_step_s": first_step_s, "train/loss": window.last}
        write_json(folder.result, {"task": "train", "steps": last_step, "metrics": result})


def evaluate_only(config: RunConfig, plan: LaunchPlan, folder: RunDir, *, rank: int, status: Status) -> None:
    """Evaluate the checkpoint that the task names."""
    assert isinstance(config.task, EvaluateTask)
    journal = Journal(folder.journal) if rank == 0 else NullJournal()
    status.stage("data")
    _, source = open_sources(config.data, plan.dataset)
    loader = Loader(config.data, augment=config.augment, seed=config.seed)
    status.stage("build")
    net = MobileViT(config.model, num_classes=plan.num_classes)
    device.cast_network(net, config.precision)
    path = checkpoint.find(Path(config.task.checkpoint))
    checkpoint.load(net, checkpoint.read(path), source=path)
    step = EvaluateStep(net, num_classes=plan.num_classes)
    status.stage("compile")
    compile_s = _compile_evaluation(step, config)
    status.stage("evaluate")
    workers = device.Workers(plan.world_size)
    found = _evaluate(step, config, plan, loader, source, rank=rank, workers=workers)
    loader.close()
    if rank == 0:
        _must_be_finite(found.metrics(), step=0)
        metrics = {**found.metrics(), "perf/compile_eval_s": compile_s, "perf/peak_rss_mb": device.peak_rss_mb()}
        journal.metrics(metrics, step=0, epoch=0)
        _write_confusion(folder, found)
        counts = {"correct1": found.correct1, "correct5": found.correct5, "count": found.count}
        write_json(folder.result, {"task": "evaluate", "steps": 0, "metrics": metrics, "counts": counts})


class Step:
    """One update: a single graph, or one graph per micro-batch and one for the update."""

    def __init__(self, gradients: Gradients, update: Update, *, accumulation: int) -> None:
        self.accumulate = Accumulate(gradients) if accumulation > 1 else None
        self.apply = ApplyAccumulated(self.accumulate, update) if self.accumulate else TrainStep(gradients, update)
        for cell in (self.accumulate, self.apply):
            if cell is not None:
                cell.set_train(True)

    def compile(self, batch: Batch, rates: tuple[float, ...]) -> float:
        """Compile for the shapes of `batch`; returns the seconds of all graphs of the step."""
        inputs = (*_tensors(batch), ms.Tensor(0, ms.int32))
        scalars = _scalars(rates)
        if self.accumulate is None:
            return compile_graph(self.apply, *inputs, *scalars)
        return compile_graph(self.accumulate, *inputs) + compile_graph(self.apply, *scalars)

    def __call__(self, batches: Iterator[Batch], keys: list[int], rates: tuple[float, ...]):
        """Take a batch for each key; returns the loss sum over the global batch and the gradient norm, on device."""
        scalars = _scalars(rates)
        # Evaluation in between switches the network's mode, which is part of a graph's identity.
        if self.accumulate is None:
            self.apply.set_train(True)
            return self.apply(*_tensors(next(batches)), ms.Tensor(keys[0], ms.int32), *scalars)
        self.accumulate.set_train(True)
        for key in keys:
            self.accumulate(*_tensors(next(batches)), ms.Tensor(key, ms.int32))
        return self.apply(*scalars)


@dataclass
class Window:
    """The losses since the last journal line, still on the device."""

    global_batch_size: int
    losses: list[tuple[int, ms.Tensor]] = field(default_factory=list)
    last: float = float("nan")

    def add(self, index: int, loss_sum: ms.Tensor) -> None:
        self.losses.append((index, loss_sum))

    def close(self) -> float:
        """Mean loss of the window; raises `NonFiniteLoss` naming the steps."""
        values = {index: float(loss.asnumpy()) / self.global_batch_size for index, loss in self.losses}  # synchronises
        self.losses.clear()
        bad = [index + 1 for index, value in values.items() if not np.isfinite(value)]
        if bad:
            steps = f"step {bad[0]}" if len(bad) == 1 else f"steps {bad[0]} to {bad[-1]}"
            raise NonFiniteLoss(f"the loss is not finite at {steps}; lower optimizer.lr or set train.clip_norm")
        self.last = float(np.mean(list(values.values())))
        return self.last


@dataclass
class Throughput:
    """Time of the steps in steady state: no compilation, no first steps, no evaluation."""

    global_batch_size: int
    steps: int = 0
    seconds: float = 0.0
    waiting_s: float = 0.0
    _began: float = 0.0
    _waited: float = 0.0
    _counted: int = 0

    def start(self, *, waited_s: float) -> None:
        self._began, self._waited, self._counted = time.perf_counter(), waited_s, self.steps

    def stop(self, *, waited_s: float) -> None:
        """The device must have been synchronised."""
        if self.steps > self._counted:
            self.seconds += time.perf_counter() - self._began
            self.waiting_s += waited_s - self._waited

    def metrics(self) -> dict[str, float]:
        """Empty for a run of too few steps to have a steady state."""
        if not self.steps:
            return {}
        return {
            "perf/images_per_s": self.steps * self.global_batch_size / self.seconds,
            "perf/step_ms": 1e3 * self.seconds / self.steps,
            "perf/data_wait_pct": 100.0 * self.waiting_s / self.seconds,
        }


def _my_parts(plan: LaunchPlan, rank: int) -> range:
    """The parts of a global batch that a worker takes, in order."""
    return range(rank * plan.accumulation, (rank + 1) * plan.accumulation)


def _parts(config: RunConfig, plan: LaunchPlan, *, rank: int, epoch: int) -> Iterator[np.ndarray]:
    order = sampler.epoch_order(plan.dataset.num_train, seed=config.seed, epoch=epoch)
    for step in range(plan.steps_per_epoch):
        for part in _my_parts(plan, rank):
            yield sampler.train_indices(
                order,
                step=step,
                global_batch_size=plan.global_batch_size,
                num_slices=plan.world_size * plan.accumulation,
                part=part,
            )


def _evaluate(
    step: EvaluateStep, config: RunConfig, plan: LaunchPlan, loader: Loader, source, *, rank: int, workers
) -> Evaluation:
    shard = sampler.shard(len(source.labels), rank=rank, world_size=plan.world_size)
    batches = loader.evaluate(source, shard, batch_size=config.train.eval_batch_size, num_batches=plan.eval_steps)
    return evaluate(step, batches, num_classes=plan.num_classes, reduce=workers.sum)


def _compile_evaluation(step: EvaluateStep, config: RunConfig) -> float:
    step.set_train(False)
    batch = _blank(config.train.eval_batch_size, config.data.image_size)
    return compile_graph(step, *_tensors(batch), ms.Tensor(batch.mask))


def _blank(batch_size: int, image_size: int) -> Batch:
    return Batch(
        images=np.zeros((batch_size, 3, image_size, image_size), np.float32),
        labels=np.zeros(batch_size, np.int32),
        mask=np.ones(batch_size, np.float32),
    )


def _tensors(batch: Batch) -> tuple[ms.Tensor, ms.Tensor]:
    return ms.Tensor(batch.images), ms.Tensor(batch.labels)


def _scalars(values: tuple[float, ...]) -> list[ms.Tensor]:
    return [ms.Tensor(value, ms.float32) for value in values]


def _write_confusion(folder: RunDir, found: Evaluation) -> None:
    write_json(folder.confusion, {"counts": found.confusion.tolist()})


def _conventions(config: RunConfig, plan: LaunchPlan) -> dict[str, object]:
    """What images must look like for these weights."""
    data = config.data
    return {
        "mean": data.mean,
        "std": data.std,
        "channel_order": data.channel_order,
        "eval_crop_fraction": data.eval_crop_fraction,
        "layer_norm_eps": config.model.layer_norm_eps,
        "token_projection": config.model.token_projection,
        "num_classes": plan.num_classes,
    }
