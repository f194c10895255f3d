"""The processes of one attempt of a run: start, watch, stop; and what became of it.

Outcome.status  FINISHED  result.json, and exit code 0 or the word of all workers that they are done
                KILLED    someone stopped it (SIGINT, SIGTERM, SIGHUP)
                FAILED    anything else, with the first cause from the workers' own status files

To stop is a ladder: ask for a checkpoint, SIGTERM, SIGKILL. A second signal goes to its end at once.
"""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

from mvit.config import LimitsConfig
from mvit.files import write_json
from mvit.parent.command import Command
from mvit.parent.host import is_free
from mvit.parent.verdict import disk_trouble, first_cause, first_error, kernel_kills, log_of, lost
from mvit.parent.watchdog import Watchdog
from mvit.process import MARK, die_with_parent, marked, new_mark, process_start
from mvit.rundir.ending import Failure, Outcome
from mvit.rundir.paths import RunDir
from mvit.rundir.status import read_statuses, workers_finished

POLL_S = 0.2
STOP_S = 4.0
"""From the wish to stop to SIGTERM: a checkpoint of the current step is written meanwhile."""
LEAVE_S = 0.5
"""From the last word of all workers to SIGTERM: under msrun they wait for each other for seconds."""
TERM_S = 1.5
"""Between SIGTERM and SIGKILL."""
GRACE_S = 3.0
"""Between the first failure of a worker and the end of all, and after SIGKILL."""


Watcher = Callable[[RunDir], None]


def run(command: Command, folder: RunDir, *, limits: LimitsConfig, watch: Watcher, stop: list[int]) -> Outcome:
    """Run the command to its end, or until `stop` holds a signal. Leaves no process behind.

    `watch` is called several times a second.
    """
    if command.port is not None and not is_free(command.port):  # msrun would find out after its time limit
        return Outcome("FAILED", 1, Failure("port", None, "start", f"port {command.port} is taken"))
    try:
        _forget(folder)
        command.logs.mkdir(parents=True, exist_ok=True)
        log = (command.logs / "launch.log").open("ab")
    except OSError as error:
        return Outcome("FAILED", 1, Failure("disk", None, "start", f"{error.filename}: {error.strerror}"))
    mark, kills = new_mark(secrets.token_hex(4)), kernel_kills()
    with log:
        try:
            process = subprocess.Popen(
                command.argv,
                env={**os.environ, **command.env, MARK: mark},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C reaches this process alone, which then stops the workers in order
                # A heartbeat would see that the launcher is gone, but msrun's scheduler holds the interpreter's lock.
                preexec_fn=die_with_parent,
            )
        except OSError as error:
            message = f"cannot start {command.argv[0]}: {error.strerror}"
            return Outcome("FAILED", 1, Failure("config", None, "start", message))
        failed_at: float | None = None
        cause: Failure | None = None
        patience = Watchdog(limits, workers=command.workers, now=time.monotonic())
        try:
            while process.poll() is None and not stop:
                time.sleep(POLL_S)
                watch(folder)
                if failed_at is None:
                    workers, now = read_statuses(folder), time.monotonic()
                    told = first_error(workers, command)
                    if told is None:
                        blind = disk_trouble(folder.path) is not None
                        cause = lost(workers, command) or patience.look(workers, now=now, blind=blind)
                    elif told.kind == "comm" and told.rank is not None:  # it may be another one that is not there
                        cause = lost(workers, command) or patience.waited_for(told.rank, workers, now=now)
                    if cause or told:
                        failed_at = now
                # msrun would wait for its scheduler for most of a minute after a worker has failed.
                if failed_at is not None and (
                    time.monotonic() - failed_at > GRACE_S or (cause and cause.kind == "hang")
                ):
                    break
            if stop and failed_at is None:
                _ask(process, folder, watch=watch, stop=stop)
        finally:
            _end(process, mark, stop=stop)
        watch(folder)
    code = process.returncode
    # MindSpore's threads may crash while its process leaves, after all is written.
    if folder.result.exists() and (code == 0 or workers_finished(folder)):
        return Outcome("FINISHED", 0)
    if stop and failed_at is None:
        return Outcome("KILLED", 128 + stop[0])
    cause = cause or first_cause(code, command, folder)
    if cause.kind in ("killed", "data") and kernel_kills() > kills:
        cause = replace(cause, kind="oom", message=f"{cause.message}: the kernel killed it for want of memory")
    # On a full disk no worker can say why it ended.
    if cause.kind in ("killed", "code") and cause.where is None and (trouble := disk_trouble(folder.path)):
        cause = Failure("disk", None, cause.stage, f"{folder.path}: {trouble}; {cause.message}")
    if cause.log is None:
        cause = replace(cause, log=log_of(command, cause.rank))
    return Outcome("FAILED", 1, cause)


def _forget(folder: RunDir) -> None:
    """Take away what an earlier attempt left between parent and workers: it would look like one that is dead."""
    left = (folder.stop, folder.stop_at, folder.result, folder.error, *folder.status.glob("*.json"))
    for path in left:
        path.unlink(missing_ok=True)


def _ask(process: subprocess.Popen[bytes], folder: RunDir, *, watch: Watcher, stop: list[int]) -> None:
    """Ask for a checkpoint of the current step, and wait until the workers have written it and are gone."""
    try:
        write_json(folder.stop, {"signal": stop[0]})
    except OSError:  # on a full disk there is no checkpoint to wait for, and nobody who would hear of it
        return
    deadline = time.monotonic() + STOP_S
    last_word = float("inf")
    while process.poll() is None and len(stop) == 1 and time.monotonic() < deadline:
        workers = [s for s in read_statuses(folder) if s["rank"] >= 0 and process_start(s["pid"]) == s["started"]]
        stages = {status["stage"] for status in workers}
        if stages == {"stopped"}:  # all is written: they may leave by themselves, and need not
            last_word = min(last_word, time.monotonic())
            deadline = min(deadline, last_word + LEAVE_S)
        elif not stages & {"step", "evaluate"}:  # before the first step there is nothing to save
            return
        time.sleep(POLL_S / 4)
        watch(folder)


def _end(process: subprocess.Popen[bytes], mark: str, *, stop: list[int]) -> None:
    """SIGTERM, then SIGKILL, to every process of the launch that still exists."""
    for number, grace_s in ((signal.SIGTERM, TERM_S), (signal.SIGKILL, GRACE_S)):
        deadline = time.monotonic() + grace_s
        asked: set[int] = set()
        while (left := _alive(process, mark)) and time.monotonic() < deadline:
            if number == signal.SIGTERM and len(stop) > 1:
                break
            for pid in left - asked:  # what was started in the meantime is asked too
                with suppress(ProcessLookupError):
                    os.kill(pid, number)
            asked |= left
            time.sleep(POLL_S / 4)
    with suppress(subprocess.TimeoutExpired):
        process.wait(GRACE_S)


def _alive(process: subprocess.Popen[bytes], mark: str) -> set[int]:
    process.poll()  # a child that has ended is a zombie until it is waited for
    return marked(mark)
