"""A training run, and an evaluation, from top to bottom."""

import time
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import asdict

import mindspore as ms
import numpy as np

from mvit.config import EvaluateRun, RunConfig, TrainRun, WeightsInit
from mvit.data.dataset import open_splits
from mvit.files import write_json
from mvit.models.mobilevit import MobileViT
from mvit.models.spec import groups
from mvit.plan import LaunchPlan
from mvit.rundir.frozen import Run, run_digest
from mvit.rundir.journal import Journal
from mvit.rundir.paths import RunDir
from mvit.rundir.result import EvaluateResult, TrainResult, write_result
from mvit.rundir.status import Stage
from mvit.schedule import learning_rate
from mvit.worker import checkpoint, device
from mvit.worker.checkpoint_writer import Writer
from mvit.worker.evaluate import EvaluateStep, Evaluation, evaluate
from mvit.worker.heartbeat import Heartbeat
from mvit.worker.images import Normalise
from mvit.worker.input import mix, sampler
from mvit.worker.input.loader import Batch, Loader, Part
from mvit.worker.meters import NonFinite, Throughput, Window, must_be_finite
from mvit.worker.optim import make_optimizer
from mvit.worker.progress import Progress
from mvit.worker.step import RunStep, blank_batch, compile_graph, tensors
from mvit.worker.step_graphs import Ema, Gradients, Scale, Update
from mvit.worker.stop import StopAgreement, Stopped

MOST_DROPPED = 100
"""Updates in a row that may overflow: a dynamic loss scale has long found its place by then."""


class NullJournal:
    """The journal of every rank but 0."""

    def metrics(self, metrics: dict[str, float], *, step: int, epoch: int) -> None: ...

    def event(self, event: str, **fields: object) -> None: ...

    def close(self) -> None: ...


def train(run: Run, *, rank: int, heartbeat: Heartbeat) -> None:
    """Train as planned. Rank 0 writes journal, checkpoints and, last of all, result.json."""
    config, plan, folder, status = run.config, run.plan, run.folder, heartbeat
    assert isinstance(config, TrainRun)
    journal = Journal(folder.journal) if rank == 0 else NullJournal()
    workers = device.Workers(plan.world_size)
    recipe = config.train

    status.stage(Stage.DATA)
    train_source, val_source = open_splits(config.data, facts=plan.dataset, index=folder.data_index)
    loader = Loader(
        config.data, augment=config.augment, seed=config.seed, largest=_largest(plan), in_memory=train_source.in_memory
    )

    status.stage(Stage.BUILD)
    ms.set_seed(config.seed)
    net = MobileViT(config.model, num_classes=plan.num_classes)
    device.cast_network(net, config.precision)
    begun = checkpoint.load_newest(folder.checkpoints)
    if begun is None and isinstance(config.init, WeightsInit):
        weights = checkpoint.weights_of(config.init)
        new = checkpoint.initialise(net, weights)
        journal.event("initialised", source=str(weights.source), weights=weights.which, new=list(new))
    device.freeze(net, recipe.freeze)
    normalise = Normalise(config.data)
    scale = Scale(config.scaling) if config.scaling else None
    mixed = config.augment.mix is not None
    gradients = Gradients(net, normalise=normalise, smoothing=recipe.label_smoothing, mixed=mixed, scale=scale)
    rate_factors, decays = groups([p.name for p in net.trainable_params()], config.optimizer, model=config.model)
    optimizer = make_optimizer(net.trainable_params(), config.optimizer, rate_factors=rate_factors, decays=decays)
    update = Update(
        optimizer,
        num_parts=plan.world_size * plan.accumulation,
        distributed=plan.world_size > 1,
        clip_norm=recipe.clip_norm,
        clip_value=recipe.clip_value,
        scale=scale,
    )
    ema = Ema(net, recipe.ema_momentum) if recipe.ema_momentum else None
    step = RunStep(gradients, update, ema, accumulation=plan.accumulation)
    evaluate_step = EvaluateStep(net, normalise=normalise, num_classes=plan.num_classes)
    kept = [cell for cell in (net, optimizer, ema, scale) if cell is not None]

    at = Progress()
    if begun is not None:
        checkpoint.restore(kept, begun.tensors, rank=rank, source=begun.checkpoint.tensors)
        at = Progress(**begun.sidecar["progress"])
        journal.event("resumed", step=at.step, damaged=list(begun.damaged))

    status.stage(Stage.COMPILE)
    compiled = _compile(step, evaluate_step, plan, journal)
    compile_eval_s = compiled["evaluate"]
    compile_s = sum(compiled.values()) - compile_eval_s
    times = {"perf/compile_s": compile_s, "perf/compile_eval_s": compile_eval_s}
    journal.metrics(times, step=0, epoch=0)

    status.stage(Stage.STEP)
    writer = Writer(
        folder.checkpoints,
        keep_last=recipe.keep_last,
        keep_best=recipe.keep_best,
        report=lambda number, reason: journal.event("checkpoint_failed", step=number, reason=reason),
    )
    digest = run_digest(folder)
    stop = StopAgreement(folder, rank=rank, world_size=plan.world_size)
    window = Window(at.window, last=at.last_loss)
    throughput = Throughput(synchronise=window.synchronise, waited_s=lambda: loader.waited_s)

    def save() -> None:
        """A checkpoint of this moment; every worker must call this."""
        at.window, at.last_loss = window.values(), window.last
        others = {} if at.averaged else _statistics_of_others(workers, _statistics(kept))
        if rank == 0:
            sidecar = {
                "step": at.step,
                "epoch": epoch,
                "run": digest,
                "progress": asdict(at),
                "conventions": _conventions(config, plan),
            }
            writer.save({**checkpoint.snapshot(kept), **others}, sidecar)

    for epoch in range(at.epoch(plan.steps_per_epoch), recipe.epochs + 1):
        begins, ends = (epoch - 1) * plan.steps_per_epoch, min(epoch * plan.steps_per_epoch, plan.last_step)
        slices = sampler.epoch_slices(plan.buckets, seed=config.seed, epoch=epoch)[at.step - begins : ends - begins]
        parts = _parts(config, plan, slices, rank=rank, epoch=epoch)
        with closing(loader.train(train_source, parts, epoch=epoch)) as batches:
            throughput.start()
            for slice_ in slices:
                began = time.perf_counter()
                bucket = plan.buckets[slice_.bucket]
                lr = learning_rate(
                    config.schedule,
                    peak=plan.peak_lr,
                    step=at.step,
                    steps_per_epoch=plan.steps_per_epoch,
                    total_steps=plan.total_steps,
                )
                draws = [_draws(config, step=at.step, part=p, size=bucket.image_size) for p in _my_parts(plan, rank)]
                with throughput.step(bucket.global_batch_size, shape=slice_.bucket):
                    loss_sum, norm = step(_marking(batches, status), draws, lr=lr, decay=config.optimizer.weight_decay)
                    at.advance()
                    window.add(at.step, loss_sum, count=bucket.global_batch_size)
                if at.first_step_s is None:
                    window.synchronise()
                    at.first_step_s = time.perf_counter() - began
                    journal.metrics({"perf/first_step_s": at.first_step_s}, step=1, epoch=epoch)
                if at.step % recipe.log_every_steps == 0 or at.step == plan.last_step:
                    logged = {"train/loss": window.close(), "train/lr": lr}
                    logged |= _stability(norm, scale, step=at.step)
                    must_be_finite(logged, step=at.step)
                    journal.metrics(logged, step=at.step, epoch=epoch)
                status.step(at.step)
                if stop.is_due(at.step):
                    break
                if recipe.checkpoint_every_steps and at.step % recipe.checkpoint_every_steps == 0 and at.step < ends:
                    save()
            throughput.stop()

        is_last = at.step == plan.last_step
        evaluates = not at.evaluated and at.step == ends and (is_last or epoch % recipe.eval_every_epochs == 0)
        if evaluates and not at.averaged:
            workers.average(_statistics(kept))
            at.averaged = True
        if evaluates or stop.step == at.step:
            save()
        if stop.step == at.step:
            writer.close()
            with suppress(OSError):
                journal.close()
            raise Stopped(f"stopped after step {at.step}")
        if evaluates:
            status.stage(Stage.EVALUATE)
            found = _evaluate(
                evaluate_step, plan, config, loader, val_source, rank=rank, workers=workers, status=status
            )
            scores, best_of = found.metrics(), "raw"
            if ema is not None:
                with device.swapped(ema.parameters, ema.averages):
                    of_ema = _evaluate(
                        evaluate_step, plan, config, loader, val_source, rank=rank, workers=workers, status=status
                    )
                scores |= of_ema.metrics(prefix="val/ema_")
                if of_ema.acc1 > found.acc1:
                    found, best_of = of_ema, "ema"
            must_be_finite(scores, step=at.step)
            improved = found.acc1 > at.best["best/val_acc1"]
            if improved:
                at.best = {"best/val_acc1": found.acc1, "best/epoch": epoch}
            at.final = {**scores, **at.best, **throughput.metrics(), "perf/peak_rss_mb": device.peak_rss_mb()}
            at.evaluated = True
            journal.metrics(at.final, step=at.step, epoch=epoch)
            if rank == 0:
                about = {"progress": asdict(at), "epoch": epoch, "metrics": scores, "best_of": best_of}
                writer.judge(at.step, {**about, "score": found.acc1}, is_best=improved)
                if improved:
                    _write_confusion(folder, found, journal)
            status.stage(Stage.STEP)
        if is_last:
            break

    writer.close()
    # Every graph of the plan but the evaluation's; one more would have been compiled in the middle of a measurement.
    assert step.compiled() == len(plan.graphs) - 1, f"{step.compiled()} graphs, planned {len(plan.graphs) - 1}"
    loader.close()
    journal.close()
    if rank == 0:
        metrics = {**at.final, **times, "perf/first_step_s": at.first_step_s, "train/loss": window.last}
        result = TrainResult(task="train", steps=at.step, metrics=metrics, graphs=compiled, compiled=step.compiled())
        write_result(folder, result)


def evaluate_only(run: Run, *, rank: int, heartbeat: Heartbeat) -> None:
    """Evaluate the checkpoint that the task names."""
    config, plan, folder, status = run.config, run.plan, run.folder, heartbeat
    assert isinstance(config, EvaluateRun)
    journal = Journal(folder.journal) if rank == 0 else NullJournal()
    status.stage(Stage.DATA)
    _, source = open_splits(config.data, facts=plan.dataset, index=folder.data_index)
    loader = Loader(config.data, augment=None, seed=0, largest=_largest(plan), in_memory=source.in_memory)
    status.stage(Stage.BUILD)
    net = MobileViT(config.model, num_classes=plan.num_classes)
    device.cast_network(net, config.precision)
    weights = checkpoint.weights_of(config.task)
    checkpoint.load(net, weights.tensors, source=weights.source)
    step = EvaluateStep(net, normalise=Normalise(config.data), num_classes=plan.num_classes)
    status.stage(Stage.COMPILE)
    compiled = {"evaluate": _compile_evaluation(step, plan)}
    status.stage(Stage.EVALUATE)
    workers = device.Workers(plan.world_size)
    found = _evaluate(step, plan, config, loader, source, rank=rank, workers=workers, status=status)
    loader.close()
    if rank == 0:
        must_be_finite(found.metrics(), step=0)
        metrics = {**found.metrics(), "perf/compile_eval_s": compiled["evaluate"]}
        metrics["perf/peak_rss_mb"] = device.peak_rss_mb()
        journal.metrics(metrics, step=0, epoch=0)
        _write_confusion(folder, found, journal)
        journal.close()
        result = EvaluateResult(
            task="evaluate",
            metrics=metrics,
            graphs=compiled,
            correct1=found.correct1,
            correct5=found.correct5,
            count=found.count,
            weights=weights.which,
        )
        write_result(folder, result)


def _marking(batches: Iterator[Batch], status: Heartbeat) -> Iterator[Batch]:
    """Each batch that is there is a mark: who waits for its data is behind who waits for the other workers."""
    for batch in batches:
        status.mark()
        yield batch


def _my_parts(plan: LaunchPlan, rank: int) -> range:
    """The parts of a global batch that a worker takes, in order."""
    return range(rank * plan.accumulation, (rank + 1) * plan.accumulation)


def _parts(config: TrainRun, plan: LaunchPlan, slices: list[sampler.Slice], *, rank: int, epoch: int) -> Iterator[Part]:
    """What this worker loads in an epoch, a batch for each micro-batch."""
    order = sampler.epoch_order(plan.dataset.num_train, seed=config.seed, epoch=epoch, repeats=config.augment.repeats)
    num_slices = plan.world_size * plan.accumulation
    for slice_ in slices:
        bucket = plan.buckets[slice_.bucket]
        for part in _my_parts(plan, rank):
            places = sampler.part_of(bucket.global_batch_size, start=slice_.start, num_slices=num_slices, part=part)
            yield Part(order.indices[places], order.views[places], bucket.image_size)


def _draws(config: TrainRun, *, step: int, part: int, size: int) -> tuple[np.ndarray, int]:
    """How one part's images are mixed, and the key of its dropout."""
    how = mix.draw(config.augment.mix, seed=config.seed, step=step, part=part, image_size=size)
    return how, sampler.dropout_key(config.seed, step=step, part=part)


def _stability(norm: ms.Tensor, scale: Scale | None, *, step: int) -> dict[str, float]:
    """Gradient norm, and what the loss scale did; raises `NonFinite` when every update overflows."""
    if scale is None:
        return {"train/grad_norm": float(norm.asnumpy())}  # synchronises
    in_a_row = int(scale.dropped_in_a_row.asnumpy())
    if in_a_row >= MOST_DROPPED:
        raise NonFinite(
            f"the gradients overflow: the last {in_a_row} updates, to step {step}, were dropped;"
            " lower optimizer.lr, or use precision.level=O1 or precision=fp32"
        )
    metrics = {
        "train/loss_scale": float(scale.value.asnumpy()),
        "train/dropped_updates": float(scale.dropped.asnumpy()),
    }
    if in_a_row:  # the norm of a dropped update says nothing
        return metrics
    return {"train/grad_norm": float(norm.asnumpy()), **metrics}


def _statistics(cells: list) -> list[ms.Parameter]:
    """BatchNorm's running statistics, and their averages."""
    found = {p.name: p for cell in cells for p in cell.get_parameters()}
    return [p for name, p in found.items() if name.endswith(("moving_mean", "moving_variance"))]


def _statistics_of_others(workers: device.Workers, statistics: list[ms.Parameter]) -> dict[str, np.ndarray]:
    """The other workers' running statistics, which differ until they are averaged, by the names a checkpoint has."""
    return {
        checkpoint.of_rank(rank, parameter.name): value
        for rank, values in enumerate(workers.gather([p.asnumpy() for p in statistics]))
        for parameter, value in zip(statistics, values, strict=True)
        if rank > 0
    }


def _evaluate(
    step: EvaluateStep, plan: LaunchPlan, config: RunConfig, loader: Loader, source, *, rank: int, workers, status
) -> Evaluation:
    def reduce(vector: np.ndarray) -> np.ndarray:
        status.mark()
        return workers.sum(vector)

    shard = sampler.shard(len(source.labels), rank=rank, world_size=plan.world_size)
    batches = loader.evaluate(source, shard, batch_size=config.eval_batch_size, num_batches=plan.eval_steps)
    return evaluate(step, batches, num_classes=plan.num_classes, reduce=reduce)


def _compile(step: RunStep, evaluate_step: EvaluateStep, plan: LaunchPlan, journal) -> dict[str, float]:
    """Compile every graph of the plan before the first step; seconds by the graph's name."""
    seconds: dict[str, float] = {}
    for graph in plan.graphs:
        if graph.name == "evaluate":
            seconds[graph.name] = _compile_evaluation(evaluate_step, plan)
        else:
            seconds[graph.name] = step.compile(graph)
        journal.event("compiled", graph=graph.name, seconds=seconds[graph.name])
    return seconds


def _compile_evaluation(step: EvaluateStep, plan: LaunchPlan) -> float:
    step.set_train(False)
    (images,) = (graph.images for graph in plan.graphs if graph.name == "evaluate")
    assert images is not None
    batch = blank_batch(images)
    return compile_graph(step, *tensors(batch), ms.Tensor(batch.mask))


def _largest(plan: LaunchPlan) -> int:
    """Pixels of the largest batch."""
    return max(graph.images[0] * graph.images[1] * graph.images[2] for graph in plan.graphs if graph.images)


def _write_confusion(folder: RunDir, found: Evaluation, journal) -> None:
    try:
        write_json(folder.confusion, {"counts": found.confusion.tolist()})
    except OSError as error:
        journal.event("not_written", file=folder.confusion.name, reason=error.strerror)


def _conventions(config: RunConfig, plan: LaunchPlan) -> dict[str, object]:
    """What images must look like for these weights."""
    data = config.data
    return {
        "mean": data.mean,
        "std": data.std,
        "channel_order": data.channel_order,
        "eval_crop_fraction": data.eval_crop_fraction,
        "interpolation": data.interpolation,
        "antialias": data.antialias,
        "layer_norm_eps": config.model.layer_norm_eps,
        "token_projection": config.model.token_projection,
        "num_classes": plan.num_classes,
    }
