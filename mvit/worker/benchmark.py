"""Benchmark: how long the steps of each shape take, measured one by one."""

import time
from collections.abc import Callable

import numpy as np

from mvit.config import BenchmarkRun
from mvit.machine_load import others_s
from mvit.plan import GraphPlan
from mvit.rundir.frozen import Run
from mvit.rundir.measured import Measured
from mvit.rundir.result import BenchmarkResult, write_result
from mvit.rundir.status import Stage
from mvit.worker import device
from mvit.worker.heartbeat import Heartbeat
from mvit.worker.meters import must_be_finite
from mvit.worker.noise_steps import NoiseSteps
from mvit.worker.session import Session, open_session

STAGES = {"train": Stage.STEP, "inference": Stage.EVALUATE}


def benchmark(run: Run, config: BenchmarkRun, *, rank: int, heartbeat: Heartbeat) -> None:
    """Measure each shape of the plan. Rank 0 writes the journal, and result.json last."""
    session = open_session(run, rank=rank, heartbeat=heartbeat)
    steps = NoiseSteps.build(session, config)

    heartbeat.stage(Stage.COMPILE)
    compiled = steps.compile()
    metrics = compiled.metrics()

    shapes: list[Measured] = []
    for graph in run.plan.graphs:
        heartbeat.stage(STAGES[graph.mode])
        shape = _measure(session, config, graph, steps.step(graph), compile_s=compiled.seconds[graph.name])
        shapes.append(shape)
        metrics |= shape.metrics()
        speed = {"step_ms": shape.quartiles_ms[1], "images_per_s": shape.images_per_s}
        session.journal.event("measured", graph=graph.name, **speed)
    num_compiled = steps.cells.step.compiled()
    planned = sum(graph.mode == "train" for graph in run.plan.graphs)
    assert num_compiled == planned, f"{num_compiled} training graphs, planned {planned}"
    session.loader.close()
    if rank > 0:
        return
    metrics["perf/peak_rss_mb"] = device.peak_rss_mb()
    must_be_finite(metrics, step=config.task.warmup_steps + config.task.repeats)
    session.journal.metrics(metrics, step=0, epoch=0)
    session.journal.close()
    result = BenchmarkResult(task="benchmark", metrics=metrics, graphs=compiled.seconds, shapes=tuple(shapes))
    write_result(run.folder, result)


def _measure(
    session: Session, config: BenchmarkRun, graph: GraphPlan, step: Callable[[], float], *, compile_s: float
) -> Measured:
    """Every worker must call this; all of them start together."""
    task, world_size = config.task, session.run.plan.world_size
    assert graph.images is not None
    for number in range(task.warmup_steps):
        step()
        session.heartbeat.step(number + 1)
    session.workers.sum(np.zeros(1, np.float32))
    others, began, times = others_s(), time.perf_counter(), np.zeros(task.repeats, np.float32)
    loss = 0.0
    for number in range(task.repeats):
        start = time.perf_counter()
        loss = step()
        times[number] = time.perf_counter() - start
        session.heartbeat.step(task.warmup_steps + number + 1)
    seconds = time.perf_counter() - began
    others = others_s() - others
    slowest = np.max([of_worker[0] for of_worker in session.workers.gather([times])], axis=0)
    batch_size, image_size, *_ = graph.images
    return Measured(
        graph=graph.name,
        mode=graph.mode,
        batch_size=batch_size,
        image_size=image_size,
        images=batch_size * world_size,
        step_ms=tuple(1e3 * float(second) for second in slowest),
        compile_s=compile_s,
        loss=loss,
        other_load_pct=max(0.0, 100.0 * others / seconds),  # a difference of two readings, not simultaneous
    )
