"""The processes of a run: start, watch, stop; and what became of it.

Outcome.status  FINISHED  exit code 0 and result.json
                KILLED    someone stopped it (SIGINT, SIGTERM)
                FAILED    anything else, with the first cause from the workers' own status files
"""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from mvit.plan import LaunchPlan
from mvit.process import MARK, marked, new_mark, process_start
from mvit.rundir import RunDir, read_json

POLL_S = 0.2
GRACE_S = 3.0
"""Between SIGTERM and SIGKILL, and between the first failure of a worker and the end of all."""


@dataclass(frozen=True)
class Failure:
    """The first cause."""

    rank: int | None
    stage: str
    message: str
    where: str | None
    log: Path | None

    def lines(self) -> Iterator[str]:
        """One block for a person."""
        place = f" at {self.where}" if self.where else ""
        rank = "" if self.rank is None else f"rank {self.rank}, "
        yield f"failed ({rank}{self.stage}){place}: {self.message}"
        if self.log is not None:
            yield f"log: {self.log}"


@dataclass(frozen=True)
class Outcome:
    """How a run ended."""

    status: Literal["FINISHED", "FAILED", "KILLED"]
    exit_code: int
    failure: Failure | None = None


Watcher = Callable[[RunDir], None]


def run(plan: LaunchPlan, folder: RunDir, *, watch: Watcher, stop: list[int]) -> Outcome:
    """Run the plan's command to its end, or until `stop` holds a signal. Leaves no process behind.

    `watch` is called several times a second.
    """
    mark = new_mark(secrets.token_hex(4))
    with (folder.logs / "launch.log").open("ab") as log:
        try:
            process = subprocess.Popen(
                plan.argv,
                env={**os.environ, **plan.env, MARK: mark},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C reaches this process alone, which then stops the workers in order
            )
        except OSError as error:
            failure = Failure(None, "start", f"cannot start {plan.argv[0]}: {error.strerror}", None, None)
            return Outcome("FAILED", 1, failure)
        failed_at: float | None = None
        lost: dict[str, Any] | None = None
        try:
            while process.poll() is None and not stop:
                time.sleep(POLL_S)
                watch(folder)
                if failed_at is None:
                    workers = statuses(folder)
                    lost = next((status for status in workers if _is_lost(status)), None)
                    if lost or any(status["error"] for status in workers):
                        failed_at = time.monotonic()
                # msrun would wait for its scheduler for most of a minute after a worker has failed.
                if failed_at is not None and time.monotonic() - failed_at > GRACE_S:
                    break
        finally:
            _end(process, mark)
        watch(folder)
    return _outcome(process.returncode, plan, folder, stopped_by=stop[0] if stop else None, lost=lost)


def _is_lost(status: dict[str, Any]) -> bool:
    """A process that is gone without having said why: killed, for instance for want of memory."""
    ended = status["stage"] in ("done", "failed") or status["rank"] < 0  # the scheduler never says that it is done
    return not ended and process_start(status["pid"]) != status["started"]


@contextmanager
def stopping() -> Generator[list[int]]:
    """The signals that asked to stop so far; the previous handlers come back at the end."""
    received: list[int] = []
    before = {
        number: signal.signal(number, lambda got, _frame: received.append(got))
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    }
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def statuses(folder: RunDir) -> list[dict[str, Any]]:
    """What the workers say of themselves, by rank; the scheduler's is rank -1."""
    found: list[dict[str, Any]] = []
    for path in folder.status.glob("[!.]*.json"):
        with suppress(OSError, ValueError):
            found.append(read_json(path))
    return sorted(found, key=lambda status: status["rank"])


def _end(process: subprocess.Popen[bytes], mark: str) -> None:
    """SIGTERM, then SIGKILL, to every process of the launch that still exists."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        deadline = time.monotonic() + GRACE_S
        asked: set[int] = set()
        while (left := _alive(process, mark)) and time.monotonic() < deadline:
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


def _outcome(
    returncode: int | None, plan: LaunchPlan, folder: RunDir, *, stopped_by: int | None, lost: dict[str, Any] | None
) -> Outcome:
    if returncode == 0 and folder.result.exists():
        return Outcome("FINISHED", 0)
    if stopped_by is not None:
        return Outcome("KILLED", 128 + stopped_by)
    if lost and plan.world_size > 1:  # alone, its signal is the exit code
        rank = None if lost["rank"] < 0 else lost["rank"]
        message = "the process is gone without a word; was it killed, for want of memory?"
        return Outcome("FAILED", 1, Failure(rank, lost["stage"], message, None, _log(plan, folder, rank)))
    return Outcome("FAILED", 1, _first_cause(returncode, plan, folder))


def _first_cause(returncode: int | None, plan: LaunchPlan, folder: RunDir) -> Failure:
    workers = statuses(folder)
    failed = sorted((s for s in workers if s["error"]), key=lambda s: s["error"]["time"])
    if failed:
        first, error = failed[0], failed[0]["error"]
        message = f"{error['type']}: {error['message']}"
        return Failure(first["rank"], error["stage"], message, error["where"], _log(plan, folder, first["rank"]))
    if returncode is None:
        message = "cannot be ended"
    elif returncode < 0:
        message = f"ended by signal {-returncode} ({signal.Signals(-returncode).name})"
    elif returncode == 0:
        message = "ended with exit code 0 but wrote no result"
    else:
        message = f"ended with exit code {returncode}"
    rank = workers[-1]["rank"] if len(workers) == 1 else None
    return Failure(rank, workers[-1]["stage"] if workers else "start", message, None, _log(plan, folder, rank))


def _log(plan: LaunchPlan, folder: RunDir, rank: int | None) -> Path:
    worker = folder.logs / f"worker_{rank}.log"  # msrun's name
    return worker if plan.world_size > 1 and worker.exists() else folder.logs / "launch.log"
