"""Supervision of one attempt: start its processes, watch them, stop them, and say what became of it.

FINISHED  result.json, and exit code 0 or all workers reported that they are done
KILLED    stopped by a signal or a limit;  PAUSED  stopped by a scheduler that means to go on
FAILED    anything else, with the first cause from the workers' own status files

Stopping is a ladder: ask for a checkpoint, SIGTERM, SIGKILL. A second request goes to its end at once.
"""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

from mvit.config import FailureKind, LimitsConfig
from mvit.parent import verdict
from mvit.parent.command import Command
from mvit.parent.host import is_free
from mvit.parent.stop_request import StopRequest
from mvit.parent.watchdog import Watchdog
from mvit.process import MARK, die_with_parent, marked, new_mark
from mvit.rundir.ending import Failure, Outcome
from mvit.rundir.nodes import LEADER
from mvit.rundir.paths import RunDir
from mvit.rundir.status import Stage, read_statuses, read_workers, workers_finished, workers_stopped
from mvit.rundir.stop import StopReason, read_stop, write_stop

POLL_S = 0.2
STOP_S = 4.0
"""From the request to stop to SIGTERM; a checkpoint of the current step is written meanwhile."""
LEAVE_S = 0.5
"""From the end of all workers to SIGTERM: under msrun they wait for each other for seconds."""
TERM_S = 1.5
"""From SIGTERM to SIGKILL."""
GRACE_S = 3.0
"""From the first failure of a worker to the end of all, and after SIGKILL."""

Watcher = Callable[[RunDir], None]


class Nodes(Protocol):
    """The other nodes of a run on several machines."""

    def begin(self) -> None:
        """The folder is ready for the attempt."""
        ...

    def trouble(self) -> Failure | None:
        """What keeps the attempt from going on there."""
        ...


def run(
    command: Command,
    folder: RunDir,
    *,
    limits: LimitsConfig,
    watch: Watcher,
    stop: StopRequest,
    until_epoch: int | None = None,
    nodes: Nodes | None = None,
) -> Outcome:
    """Run the command to its end, to that of an epoch, or until `stop` is made. Leaves no process behind.

    Of a run on several machines, it is the command of one: the outcome on node 0 is that of the attempt. `watch` is
    called several times a second. The calling thread must live as long as the processes, which the kernel kills with
    the thread that started them.
    """
    leads = command.slot.node_rank == LEADER
    try:
        if leads:
            _clear(folder)
        # msrun would find out after its time limit.
        if leads and command.port is not None and not is_free(command.port, address=command.slot.master_addr):
            return _refused("port", f"port {command.port} is taken")
        if until_epoch is not None and read_stop(folder) is None:  # a person's request is for all attempts
            write_stop(folder, StopReason(kind="pause"), after_epoch=until_epoch)
        command.logs.mkdir(parents=True, exist_ok=True)
        log = command.log.open("ab")
        if nodes:
            nodes.begin()
    except OSError as error:
        return _refused("disk", f"{error.filename}: {error.strerror}")
    mark, kernel_kills = new_mark(secrets.token_hex(4)), verdict.kernel_kills()
    with log:
        try:
            process = subprocess.Popen(
                command.argv,
                env={**os.environ, **command.env, MARK: mark},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C reaches this process alone, which then stops the workers in order
                # A heartbeat would notice that the launcher is gone, but msrun's scheduler holds the interpreter lock.
                preexec_fn=_prepare(command),
            )
        except (OSError, subprocess.SubprocessError) as error:
            reason = error.strerror if isinstance(error, OSError) else error  # the latter: the cores cannot be bound
            return _refused("config", f"cannot start {command.argv[0]}: {reason}")
        attempt = _Attempt(process, command, folder, limits, nodes)
        try:
            attempt.follow(watch=watch, stop=stop)
            if stop and not attempt.has_failed:
                _ask(process, folder, watch=watch, stop=stop)
        finally:
            _end(process, mark, stop=stop)
        watch(folder)
    if not leads and not attempt.has_failed and (process.returncode == 0 or _have_ended(folder)):
        return Outcome("FINISHED", 0)
    # MindSpore's threads may crash while their process exits, after all is written.
    if leads and folder.result.exists() and (process.returncode == 0 or workers_finished(folder)):
        return Outcome("FINISHED", 0)
    if stop.reason and not attempt.has_failed:
        return Outcome(stop.reason.status, stop.reason.exit_code)
    if process.returncode == 0 and (wanted := read_stop(folder)) and workers_stopped(folder):
        return Outcome(wanted.reason.status, wanted.reason.exit_code)
    cause = attempt.cause or verdict.first_cause(process.returncode, command, folder)
    return Outcome("FAILED", 1, verdict.with_hindsight(cause, command, folder, kernel_kills_before=kernel_kills))


def _prepare(command: Command) -> Callable[[], None]:
    """What the child does between fork and exec: it takes no lock, and imports nothing."""
    bind = command.slot.bind()

    def prepare() -> None:
        die_with_parent()
        if bind:
            bind()

    return prepare


def _refused(kind: FailureKind, message: str) -> Outcome:
    return Outcome("FAILED", 1, Failure(kind, None, "start", message))


class _Attempt:
    """The processes of one attempt, and the first sign of a failure."""

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        command: Command,
        folder: RunDir,
        limits: LimitsConfig,
        nodes: Nodes | None,
    ) -> None:
        self.process, self.command, self.folder, self.nodes = process, command, folder, nodes
        self.watchdog = Watchdog(limits, workers=command.workers, now=time.monotonic())
        self.cause: Failure | None = None
        """Found by watching; an exception that a worker reports is looked up at the end."""
        self._failed_at: float | None = None

    @property
    def has_failed(self) -> bool:
        return self._failed_at is not None

    def follow(self, *, watch: Watcher, stop: StopRequest) -> None:
        """Until the processes end, one fails and the others had time to follow, or someone asks to stop."""
        while self.process.poll() is None and not stop:
            time.sleep(POLL_S)
            watch(self.folder)
            now = time.monotonic()
            if self._failed_at is None and self._is_failing(now):
                self._failed_at = now
            # msrun would wait for its scheduler for most of a minute after a worker has failed.
            if self._failed_at is not None:
                hangs = self.cause is not None and self.cause.kind == "hang"
                if hangs or now - self._failed_at > GRACE_S:
                    break

    def _is_failing(self, now: float) -> bool:
        statuses = read_statuses(self.folder)
        reported = verdict.first_error(statuses, self.command)
        if reported is None or (reported.kind == "comm" and reported.rank is not None):  # another one may be the reason
            elsewhere = self.nodes.trouble() if self.nodes else None
            self.cause = verdict.disappeared(statuses, self.command) or elsewhere
        if reported is None:
            blind = verdict.disk_trouble(self.folder.path) is not None
            self.cause = self.cause or self.watchdog.look(statuses, now=now, blind=blind)
        elif reported.kind == "comm" and reported.rank is not None:
            self.cause = self.cause or self.watchdog.waited_for(reported.rank, statuses, now=now)
        return reported is not None or self.cause is not None


def _clear(folder: RunDir) -> None:
    """Remove what an earlier attempt left between parent and workers: it would look like an attempt that is dead."""
    for path in (folder.stop_at, folder.result, folder.error, *folder.status.glob("*.json")):
        path.unlink(missing_ok=True)


def _have_ended(folder: RunDir) -> bool:
    """Whether the workers of this machine have done what they were here for, by their own account."""
    stages = {status.stage for status in read_workers(folder) if status.is_local}
    return bool(stages) and stages <= {Stage.DONE, Stage.STOPPED}


def _ask(process: subprocess.Popen[bytes], folder: RunDir, *, watch: Watcher, stop: StopRequest) -> None:
    """Ask for a checkpoint of the current step, and wait until the workers have written it and are gone."""
    assert stop.reason is not None
    try:
        write_stop(folder, stop.reason)
    except OSError:  # on a full disk there is no checkpoint to wait for, and nobody would hear of the request
        return
    deadline = time.monotonic() + STOP_S
    all_stopped = float("inf")
    while process.poll() is None and not stop.is_urgent and time.monotonic() < deadline:
        stages = {status.stage for status in read_workers(folder) if not status.has_disappeared()}
        if stages == {Stage.STOPPED}:  # all is written: they may leave by themselves, and need not
            all_stopped = min(all_stopped, time.monotonic())
            deadline = min(deadline, all_stopped + LEAVE_S)
        elif not any(stage.saves_on_stop for stage in stages):
            return
        time.sleep(POLL_S / 4)
        watch(folder)


def _end(process: subprocess.Popen[bytes], mark: str, *, stop: StopRequest) -> None:
    """SIGTERM, then SIGKILL, to every process of the attempt that still exists."""
    for number, grace_s in ((signal.SIGTERM, TERM_S), (signal.SIGKILL, GRACE_S)):
        deadline = time.monotonic() + grace_s
        signalled: set[int] = set()
        while (left := _alive(process, mark)) and time.monotonic() < deadline:
            if number == signal.SIGTERM and stop.is_urgent:
                break
            for pid in left - signalled:  # also what was started in the meantime
                with suppress(ProcessLookupError):
                    os.kill(pid, number)
            signalled |= left
            time.sleep(POLL_S / 4)
    with suppress(subprocess.TimeoutExpired):
        process.wait(GRACE_S)


def _alive(process: subprocess.Popen[bytes], mark: str) -> set[int]:
    process.poll()  # a child that has ended is a zombie until it is waited for
    return marked(mark)
