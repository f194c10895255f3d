"""A training run, from top to bottom."""

import time
from collections.abc import Iterable, Iterator
from contextlib import closing, suppress

import mindspore as ms

from mvit.config import Schedule, TrainConfig, TrainRun, WeightsInit
from mvit.machine_load import Usage, others_s
from mvit.plan import LaunchPlan
from mvit.rundir.frozen import Run
from mvit.rundir.result import TrainResult, write_result
from mvit.rundir.sidecar import Conventions, Position, Sidecar
from mvit.rundir.status import Stage
from mvit.schedule import learning_rate
from mvit.worker import checkpoint, device
from mvit.worker.cells import StepRecipe, TrainCells, build_cells
from mvit.worker.checkpoint_writer import Writer
from mvit.worker.compile import compile_graphs
from mvit.worker.evaluate import all_predictions, evaluate_network, write_held_out
from mvit.worker.heartbeat import Heartbeat
from mvit.worker.input.feed import Feed
from mvit.worker.input.loader import Batch
from mvit.worker.meters import NonFinite, Throughput, Window, must_be_finite
from mvit.worker.session import Session, open_session
from mvit.worker.step_graphs import Scale
from mvit.worker.stop import StopAgreement, Stopped

MOST_DROPPED = 100
"""Updates in a row that may overflow: a dynamic loss scale has long settled by then."""


def train(run: Run, *, rank: int, heartbeat: Heartbeat) -> None:
    """Train as planned. Rank 0 writes journal, checkpoints and, last of all, result.json."""
    config, plan = run.config, run.plan
    assert isinstance(config, TrainRun)
    recipe = config.train

    # --- session, weights, cells
    session = open_session(run, rank=rank, heartbeat=heartbeat, augment=config.augment, seed=config.seed)
    journal, loader = session.journal, session.loader
    newest = checkpoint.load_newest(run.folder.checkpoints)
    if newest is None and isinstance(config.init, WeightsInit):
        _initialise(session, config.init)
    cells = build_cells(session, StepRecipe.of_training(config))
    at = Position() if newest is None else _restore(session, cells, newest)

    # --- compile
    heartbeat.stage(Stage.COMPILE)
    compiled = compile_graphs(session, train=cells.step, evaluate=cells.evaluate_step)
    journal.metrics(compiled.metrics(), step=0, epoch=0)

    # --- train
    heartbeat.stage(Stage.STEP)
    writer = _open_writer(session, recipe)
    feed = Feed(plan, rank=rank, seed=config.seed, repeats=config.augment.repeats, mix=config.augment.mix)
    stop = StopAgreement(
        run.folder,
        rank=rank,
        world_size=plan.world_size,
        step=at.step,
        steps_per_epoch=plan.steps_per_epoch,
        end_of=feed.end,
    )
    window = Window(at.window, last=at.last_loss)
    throughput = Throughput(
        synchronise=window.synchronise,
        clocks={"data_wait": lambda: loader.waited_s, "other_load": others_s, **cells.clocks},
    )

    usage = Usage()

    if stop.is_over(at.step, evaluated=at.evaluated):
        raise _stopped(session, writer, at=at)
    for epoch in range(at.epoch(plan.steps_per_epoch), recipe.epochs + 1):
        slices, end = feed.slices(epoch, after=at.step), feed.end(epoch)
        micro_batches = feed.micro_batches(slices, epoch=epoch)
        with closing(loader.train(session.train_source, micro_batches, epoch=epoch)) as loaded:
            batches = _marking(loaded, heartbeat)
            throughput.start()
            for slice_ in slices:
                # --- one step
                began = time.perf_counter()
                bucket = plan.buckets[slice_.bucket]
                lr = _learning_rate(config.schedule, plan, step=at.step)
                draws = feed.draws(at.step, image_size=bucket.image_size)
                with throughput.step(bucket.global_batch_size, shape=slice_.bucket):
                    loss_sum, norm = cells.step(batches, draws, lr=lr, decay=config.optimizer.weight_decay)
                    at = at.advanced()
                    window.add(at.step, loss_sum, count=bucket.global_batch_size)

                # --- if due: log
                if at.first_step_s is None:
                    window.synchronise()
                    first_step_s = time.perf_counter() - began
                    at = at.with_first_step(first_step_s)
                    journal.metrics({"perf/first_step_s": first_step_s}, step=1, epoch=epoch)
                if at.step % recipe.log_every_steps == 0 or at.step == plan.last_step:
                    logged = {"train/loss": window.close(), "train/lr": lr}
                    logged |= _stability(norm, cells.scale, step=at.step)
                    must_be_finite(logged, step=at.step)
                    journal.metrics(logged, step=at.step, epoch=epoch)
                    if sample := usage.sample():  # apart: a step that is trained a second time logs another one
                        journal.metrics(sample, step=at.step, epoch=epoch)
                heartbeat.step(at.step)

                # --- if requested: stop
                if stop.is_due(at.step):
                    break

                # --- if due: save
                if recipe.checkpoint_every_steps and at.step % recipe.checkpoint_every_steps == 0 and at.step < end:
                    at = at.with_losses(window.values(), last=window.last)
                    _save(session, cells, writer, at=at, epoch=epoch)
            throughput.stop()

        # --- if due: save, stop, evaluate
        is_last, is_stop = at.step == plan.last_step, at.step == stop.step
        evaluates = not at.evaluated and at.step == end and (is_last or epoch % recipe.eval_every_epochs == 0)
        if evaluates and not at.averaged:
            session.workers.average(cells.statistics())
            at = at.with_averages()
        if evaluates or is_stop:
            at = at.with_losses(window.values(), last=window.last)
            _save(session, cells, writer, at=at, epoch=epoch)
        if is_stop and not stop.evaluates:
            raise _stopped(session, writer, at=at)
        if evaluates:
            at = _evaluate(session, cells, writer, at=at, epoch=epoch, measured=throughput.metrics())
        if is_last:
            break
        if is_stop:
            raise _stopped(session, writer, at=at)

    # --- end
    writer.close()
    # Every graph of the plan but the evaluation's; one more would have been compiled in the middle of a measurement.
    num_compiled = cells.step.compiled()
    assert num_compiled == len(plan.graphs) - 1, f"{num_compiled} graphs, planned {len(plan.graphs) - 1}"
    loader.close()
    journal.close()
    if rank == 0:
        metrics = {**at.final, **compiled.metrics(), "perf/first_step_s": at.first_step_s, "train/loss": window.last}
        write_result(
            run.folder,
            TrainResult(task="train", steps=at.step, metrics=metrics, graphs=compiled.seconds, compiled=num_compiled),
        )


def _stopped(session: Session, writer: Writer, *, at: Position) -> Stopped:
    """The end of a run that is stopped; all is written."""
    writer.close()
    with suppress(OSError):
        session.journal.close()
    return Stopped(f"stopped after step {at.step}")


def _initialise(session: Session, init: WeightsInit) -> None:
    """Start from the weights of another run or library."""
    weights = checkpoint.weights_of(init)
    new = checkpoint.initialise(session.net, weights)
    session.journal.event("initialised", source=str(weights.source), weights=weights.which, new=list(new))


def _restore(session: Session, cells: TrainCells, newest: checkpoint.Loaded) -> Position:
    """Continue from a checkpoint; returns where that is."""
    source = newest.checkpoint.tensors
    checkpoint.restore(cells.stateful, newest.tensors, rank=session.rank, source=source)
    session.journal.event("resumed", step=newest.sidecar.progress.step, damaged=list(newest.damaged))
    return newest.sidecar.progress


def _open_writer(session: Session, recipe: TrainConfig) -> Writer:
    journal = session.journal
    return Writer(
        session.run.folder.checkpoints,
        keep_last=recipe.keep_last,
        keep_best=recipe.keep_best,
        report=lambda step, reason: journal.event("checkpoint_failed", step=step, reason=reason),
    )


def _marking(batches: Iterable[Batch], heartbeat: Heartbeat) -> Iterator[Batch]:
    """Mark each batch that has arrived: a worker that waits for its data is behind those that wait for it."""
    for batch in batches:
        heartbeat.mark()
        yield batch


def _learning_rate(schedule: Schedule, plan: LaunchPlan, *, step: int) -> float:
    """The learning rate of the step that follows `step` steps."""
    return learning_rate(
        schedule,
        peak=plan.peak_lr,
        step=step,
        steps_per_epoch=plan.steps_per_epoch,
        total_steps=plan.total_steps,
    )


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


def _save(session: Session, cells: TrainCells, writer: Writer, *, at: Position, epoch: int) -> None:
    """Write a checkpoint of this moment; every worker must call this."""
    others = {} if at.averaged else cells.statistics_of_others(session.workers)
    if session.rank == 0:
        writer.save(_sidecar(session, at=at, epoch=epoch), {**checkpoint.snapshot(cells.stateful), **others})


def _sidecar(session: Session, *, at: Position, epoch: int) -> Sidecar:
    data, model = session.run.config.data, session.run.config.model
    return Sidecar(
        step=at.step,
        epoch=epoch,
        run=session.digest,
        progress=at,
        conventions=Conventions(
            mean=data.mean,
            std=data.std,
            channel_order=data.channel_order,
            eval_crop_fraction=data.eval_crop_fraction,
            interpolation=data.interpolation,
            antialias=data.antialias,
            layer_norm_eps=model.layer_norm_eps,
            token_projection=model.token_projection,
            num_classes=session.run.plan.num_classes,
        ),
    )


def _evaluate(
    session: Session, cells: TrainCells, writer: Writer, *, at: Position, epoch: int, measured: dict[str, float]
) -> Position:
    """Evaluate the network, and its average if there is one; the better one counts. Every worker must call this."""
    session.heartbeat.stage(Stage.EVALUATE)
    cells.evaluate_step.set_train(False)
    better, best_of = evaluate_network(session, cells.evaluate_step), "raw"
    scores = better.metrics()
    if cells.ema is not None:
        with device.swapped(cells.ema.parameters, cells.ema.averages):
            averaged = evaluate_network(session, cells.evaluate_step)
        scores |= averaged.metrics(prefix="val/ema_")
        if averaged.acc1 > better.acc1:
            better, best_of = averaged, "ema"
    must_be_finite(scores, step=at.step)

    is_best = better.acc1 > at.best["best/val_acc1"]
    best = {"best/val_acc1": better.acc1, "best/epoch": epoch} if is_best else at.best
    at = at.with_evaluation(best=best, final={**scores, **best, **measured, "perf/peak_rss_mb": device.peak_rss_mb()})
    session.journal.metrics(at.final, step=at.step, epoch=epoch)
    predictions = all_predictions(session, better) if is_best else None
    if session.rank == 0:
        sidecar = _sidecar(session, at=at, epoch=epoch)
        if is_best:  # before the evaluation counts as done, which no resumed run repeats
            writer.write(sidecar, lambda: write_held_out(session, better, predictions))
        writer.evaluated(sidecar.with_evaluation(scores, best_of=best_of, score=better.acc1), is_best=is_best)
    session.heartbeat.stage(Stage.STEP)
    return at
