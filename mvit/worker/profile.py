"""Profile: which operators the time of a step goes to, as MindSpore's profiler records it on a CPU."""

import csv
import json
import re
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from mindspore import profiler

from mvit.config import ProfileRun
from mvit.files import write_json
from mvit.plan import GraphPlan
from mvit.rundir.frozen import Run
from mvit.rundir.profile import OperatorTime, Phases, Profile, table_file, trace_file
from mvit.rundir.result import ProfileResult, write_result
from mvit.rundir.status import Stage
from mvit.worker import device
from mvit.worker.heartbeat import Heartbeat
from mvit.worker.kernel_names import kernels_dumped, read_kernels
from mvit.worker.noise_steps import NoiseSteps
from mvit.worker.session import Session, open_session

Event = dict[str, Any]
"""Of a trace, in Chrome's format; times are in microseconds."""
TOP = 10
"""Operators of each graph whose share of the step becomes a metric."""
TIMELINE = "ASCEND_PROFILER_OUTPUT/trace_view.json"
"""Where MindSpore 2.10 writes the trace, also of a CPU."""


def profile(run: Run, config: ProfileRun, *, heartbeat: Heartbeat) -> None:
    """Record steps of each graph of the plan. Writes tables and traces, the journal, and result.json last."""
    session = open_session(run, rank=0, heartbeat=heartbeat)
    steps = NoiseSteps.build(session, config)

    heartbeat.stage(Stage.COMPILE)
    run.folder.profile.mkdir(exist_ok=True)
    with TemporaryDirectory(dir=run.folder.profile) as room, kernels_dumped(Path(room)):
        compiled = steps.compile()
        kernels = read_kernels(Path(room), num_graphs=len(run.plan.graphs))
    metrics = compiled.metrics()

    profiles: list[Profile] = []
    for graph, names in zip(run.plan.graphs, kernels, strict=True):
        heartbeat.stage(Stage.STEP if graph.mode == "train" else Stage.EVALUATE)
        phases = compiled.graphs[graph.name].phases
        one = _profile(session, config, graph, steps.step(graph), phases=phases, kernels=names)
        profiles.append(one)
        metrics |= _metrics(one)
    session.loader.close()
    metrics["perf/peak_rss_mb"] = device.peak_rss_mb()
    session.journal.metrics(metrics, step=0, epoch=0)
    session.journal.close()
    result = ProfileResult(task="profile", metrics=metrics, graphs=compiled.seconds, profiles=tuple(profiles))
    write_result(run.folder, result)


def _profile(
    session: Session,
    config: ProfileRun,
    graph: GraphPlan,
    step: Callable[[], float],
    *,
    phases: Phases,
    kernels: Mapping[str, str],
) -> Profile:
    task, folder = config.task, session.run.folder.profile

    def take() -> float:
        began = time.perf_counter()
        step()
        seconds = time.perf_counter() - began
        session.heartbeat.mark()
        return 1e3 * seconds

    for _ in range(task.warmup_steps):
        take()
    unrecorded = [take() for _ in range(task.steps)]
    with TemporaryDirectory(dir=folder) as room:
        recorded = _recorded(lambda: [take() for _ in range(task.steps)], room=Path(room))
        (trace,) = Path(room).glob(f"*/{TIMELINE}")
        events: list[Event] = json.loads(trace.read_text(encoding="utf-8"))
    calls = [call for event in events if (call := _call(event, kernels))]
    write_json(trace_file(folder, graph.mode), list(_readable(events, kernels)))
    step_ms = statistics.mean(recorded)
    with table_file(folder, graph.mode).open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["operator", "name", "calls per step", "ms per step", "share of the step, %"])
        kinds = {call.name: call.kind for call in calls}
        for one in _summed(((call.name, call.ms) for call in calls), steps=task.steps, step_ms=step_ms):
            row = [f"{one.calls:g}", f"{one.ms:.4f}", f"{one.share_pct:.3f}"]
            writer.writerow([kinds[one.operator], one.operator, *row])
    return Profile(
        graph=graph.name,
        mode=graph.mode,
        steps=task.steps,
        step_ms=step_ms,
        unrecorded_step_ms=statistics.median(unrecorded),
        operators=_summed(((call.kind, call.ms) for call in calls), steps=task.steps, step_ms=step_ms),
        phases={name: seconds for name, seconds in phases.items() if seconds >= 0.01},
    )


def _recorded(steps: Callable[[], list[float]], *, room: Path) -> list[float]:
    """What the steps return, while MindSpore records their operators below a folder."""
    recorder = profiler.profile(
        activities=[profiler.ProfilerActivity.CPU],
        on_trace_ready=profiler.tensorboard_trace_handler(str(room)),
    )
    recorder.start()
    try:
        return steps()
    finally:
        recorder.stop()


@dataclass(frozen=True)
class _Call:
    kind: str
    """The operator."""
    name: str
    """Its place in the network."""
    ms: float


_OPERATOR = re.compile(r"([^/]+)-op\d+$")
"""`Default/stem-ConvNorm/conv-Conv2d/Conv2D-op12` is a Conv2D."""


def _call(event: Event, kernels: Mapping[str, str]) -> _Call | None:
    """The call of an operator; None for what else is in a trace: names of rows, and the cells around operators."""
    match = _OPERATOR.search(event["name"]) if event["ph"] == "X" else None
    return _Call(kernels.get(event["name"], match[1]), event["name"], float(event["dur"]) / 1e3) if match else None


def _readable(events: Sequence[Event], kernels: Mapping[str, str]) -> Iterator[Event]:
    """The trace from time 0, in numbers, and with the names of fused operators."""
    start = min((float(event["ts"]) for event in events if "ts" in event), default=0.0)
    for event in events:
        times = {"ts": float(event["ts"]) - start, "dur": float(event["dur"])} if event["ph"] == "X" else {}
        call = _call(event, kernels)
        name = {"name": call.kind, "args": {"name": call.name}} if call else {}
        yield {**event, **times, **name}


def _summed(calls: Iterable[tuple[str, float]], *, steps: int, step_ms: float) -> tuple[OperatorTime, ...]:
    """The average step by the first of each pair, the longest first."""
    times: defaultdict[str, list[float]] = defaultdict(list)
    for what, ms in calls:
        times[what].append(ms)
    every = [
        OperatorTime(
            operator=what, calls=len(ms) / steps, ms=sum(ms) / steps, share_pct=100.0 * sum(ms) / steps / step_ms
        )
        for what, ms in times.items()
    ]
    return tuple(sorted(every, key=lambda one: (-one.ms, one.operator)))


def _metrics(one: Profile) -> dict[str, float]:
    prefix = f"profile/{one.mode}"
    operators = {f"{prefix}/{operator.operator}_pct": operator.share_pct for operator in one.operators[:TOP]}
    phases = {f"{prefix}/compile_{name}_s": seconds for name, seconds in one.phases.items()}
    times = {f"{prefix}/step_ms": one.unrecorded_step_ms, f"{prefix}/recorded_step_ms": one.step_ms}
    return {**times, **operators, **phases}
