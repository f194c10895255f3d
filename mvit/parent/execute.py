"""Execution of a frozen run: its attempts, its mirror in MLflow, its end.

Needs no terminal, no main thread and no signal handlers: the caller owns those.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from mvit.console import pair
from mvit.parent import supervise
from mvit.parent.command import make_command
from mvit.parent.graphs import store_of
from mvit.parent.host import LOOPBACK, free_port, is_free, this_host
from mvit.parent.kernels import library_of
from mvit.parent.nodes.address import master_address
from mvit.parent.nodes.leader import Leader
from mvit.parent.slot import Slot, bound, must_fit
from mvit.parent.stop_request import StopRequest
from mvit.parent.tracking.content import artifacts_of, draw_pictures, failure_tags
from mvit.parent.tracking.live import Tracker, tracker_of
from mvit.rundir import checkpoints
from mvit.rundir.ending import RETRYABLE, Failure, Outcome, record_end, record_mirrored, write_failure
from mvit.rundir.faults import Fault, record_fault
from mvit.rundir.frozen import Run
from mvit.rundir.job import machine_name
from mvit.rundir.ownership import owned
from mvit.rundir.paths import RunDir

OTHER_PORTS = 3
"""Attempts that a taken port may cost, beside the restarts."""
LAST_WORD_S = 60.0
LAST_WORD_STOPPED_S = 5.0
"""Longest wait for MLflow at the end; of a run that was stopped, the next launch sends MLflow the rest."""


class Observer(Protocol):
    """Who follows an execution."""

    def look(self) -> None:
        """Called several times a second."""
        ...

    def say(self, line: str) -> None:
        """Something worth knowing."""
        ...

    def complain(self, line: str) -> None:
        """Something wrong that does not end the run."""
        ...


class Silent:
    """Follows nothing: everything is in the run folder."""

    def look(self) -> None: ...

    def say(self, line: str) -> None: ...

    def complain(self, line: str) -> None: ...


def execute(
    run: Run,
    *,
    slot: Slot,
    stop: StopRequest,
    observer: Observer,
    mirrored: bool = True,
    until_epoch: int | None = None,
) -> Outcome:
    """Execute the run to its end; a run that was started before goes on from its newest checkpoint.

    One that is not to be mirrored leaves MLflow to who asked for that. With `until_epoch`, the run is PAUSED after the
    evaluation of that epoch.

    Any number may be executed at once, each from a thread of its own. Raises `RunDirError` where another process, or
    another thread, is at it already, and `ConfigError` where the slot does not fit or the run's kernels are missing.
    """
    must_fit(slot, run.plan)
    kernels = library_of(run.plan, say=observer.say)
    with owned(run.folder), leading(run, observer) as leader:
        tracker = None
        outcome = Outcome("FAILED", 1, Failure("code", None, "launcher", "the launcher itself failed"))
        try:
            if mirrored and (tracker := tracker_of(run)):
                tracker.start()
            outcome = _attempts(
                run,
                slot=slot,
                kernels=kernels,
                stop=stop,
                observer=observer,
                tracker=tracker,
                leader=leader,
                until_epoch=until_epoch,
            )
        finally:
            _record(run.folder, outcome, observer)
            if leader:
                leader.over(outcome)
            if tracker:
                times = stop.times
                finish_tracking(tracker, run, outcome, observer, give_up=lambda: stop.times > times)
    return outcome


def _attempts(
    run: Run,
    *,
    slot: Slot,
    kernels: Path | None,
    stop: StopRequest,
    observer: Observer,
    tracker: Tracker | None,
    leader: Leader | None,
    until_epoch: int | None,
) -> Outcome:
    """Try, and try again what failed for a reason that may not come back."""
    folder, host, max_restarts = run.folder, this_host(), run.config.max_restarts
    slot = replace(bound(slot, run.plan), master_addr=leader.address if leader else LOOPBACK)
    if run.plan.cores is not None and host.cpu_count < run.plan.cores:
        cores = f"{host.cpu_count} cores here, {run.plan.cores} in the plan"
        observer.complain(f"{cores}: the result will not be bit-identical")
    graphs = store_of(run.config.topology)
    ports = restarts = 0
    attempt = 1 + max((_number(path) for path in folder.logs.glob("attempt-*")), default=0)

    def watch(_: RunDir) -> None:
        with suppress(OSError):  # a terminal or a disk that the observer writes to is no reason to end the run
            observer.look()
        if tracker and (news := tracker.news()):
            (observer.say if news.is_good else observer.complain)(news.line)
        if leader and not stop and (reason := leader.asked_to_stop()):
            stop.because(reason)

    while True:
        port = slot.port
        if port is None or not is_free(port, address=slot.master_addr):
            port = free_port(address=slot.master_addr)
        if leader:
            missing = leader.gather(watch=lambda: watch(folder), is_stopped=lambda: bool(stop))
            if missing:
                return Outcome("FAILED", 1, missing)
            if stop.reason:
                return Outcome(stop.reason.status, stop.reason.exit_code)
            leader.prepare(attempt=attempt, port=port)
        command = make_command(run, host=host, slot=slot, port=port, attempt=attempt, kernels=kernels, graphs=graphs)
        if run.config.verbose:
            for what, value in command.shown():
                observer.say(pair(what, value))
        outcome = supervise.run(
            command,
            folder,
            limits=run.config.limits,
            watch=watch,
            stop=stop,
            until_epoch=until_epoch,
            nodes=leader,
        )
        if leader:
            outcome = leader.settle(outcome)
        failure = outcome.failure
        if stop or failure is None:
            return outcome
        if machine := leader.machine_of(failure) if leader else machine_name():
            fault = Fault(time=time.time(), attempt=attempt, kind=failure.kind, machine=machine)
            record_fault(folder, fault)
        if failure.kind == "port" and ports < OTHER_PORTS:
            ports += 1
            observer.say(f"mvit: {failure.message}; trying another one")
        elif failure.kind in RETRYABLE and restarts < max_restarts:
            restarts += 1
            step = checkpoints.newest_step(folder)
            place = "from the beginning" if step is None else f"after step {step}"
            observer.say(f"mvit: {next(failure.lines())}; restart {restarts} of {max_restarts}, {place}")
        else:
            return outcome
        attempt += 1


@contextmanager
def leading(run: Run, observer: Observer) -> Generator[Leader | None]:
    """What node 0 of a run on several machines has to do with the others; None for a run on one."""
    if run.plan.nodes == 1:
        yield None
        return
    with Leader(run, address=master_address(), say=observer.say, complain=observer.complain) as leader:
        yield leader


def _number(path: Path) -> int:
    number = path.name.removeprefix("attempt-")
    return int(number) if number.isdecimal() else 0


def _record(folder: RunDir, outcome: Outcome, observer: Observer) -> None:
    """error.json and end.json: what the folder says of its end, whatever MLflow does."""
    if outcome.failure:
        try:
            write_failure(folder, outcome.failure)
        except OSError as error:
            observer.complain(f"cannot write {folder.error}: {error.strerror}")
    record_end(folder, outcome.status, exit_code=outcome.exit_code, failure=outcome.failure)


def finish_tracking(
    tracker: Tracker, run: Run, outcome: Outcome, observer: Observer, *, give_up: Callable[[], bool]
) -> None:
    """Send MLflow the end of the run, and record whether that arrived."""
    folder, is_stopped = run.folder, outcome.status in ("KILLED", "PAUSED")
    if not is_stopped and (problem := draw_pictures(run)):
        observer.complain(problem)
    problem = tracker.finish(
        outcome.status,
        artifacts=artifacts_of(folder, status=outcome.status),
        tags=failure_tags(outcome.failure) if outcome.failure else {},  # a full disk has no error.json
        timeout_s=LAST_WORD_STOPPED_S if is_stopped else LAST_WORD_S,
        give_up=give_up,
    )
    if problem:
        observer.complain(problem)
    record_mirrored(folder, mirrored=problem is None, left=time.time())
