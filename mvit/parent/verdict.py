"""The verdict on a failed attempt: its first cause and its class."""

from __future__ import annotations

import errno
import os
import re
import signal
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from mvit.config import FailureKind
from mvit.parent.command import Command
from mvit.parent.memory_groups import memory_groups, number_of
from mvit.rundir.ending import Failure
from mvit.rundir.paths import RunDir
from mvit.rundir.status import SCHEDULER, Stage, WorkerStatus, read_statuses

LEAST_FREE = 1 << 14
"""A disk with fewer free bytes is full: a status file and a line of the journal take a few hundred."""

_BY_TYPE: dict[str, FailureKind] = {
    "UnreadableImage": "data",
    "DataChanged": "data",
    "DataProcessDied": "data",
    "DatasetError": "data",
    "ManifestError": "data",
    "NonFinite": "nan",
    "CheckpointError": "checkpoint",
    "ConfigError": "config",
    "RunDirError": "config",
    "ValidationError": "config",
    "MemoryError": "oom",
    "LostWorker": "comm",
}
_MEMORY = re.compile(
    r"out of memory|cannot allocate memory|bad_alloc|MemoryError|memory not enough|allocat\w* \w* ?memory"
    r"|failed to map segment",  # of a library
    re.I,
)
_DISK = re.compile(rf"\[Errno ({errno.ENOSPC}|{errno.EROFS}|{errno.EDQUOT})\]")
_PORT = re.compile(r"address already in use|failed to (init|create) the tcp server|\bbind\b.*\b(fail|error)", re.I)
_COMM = re.compile(
    r"distributed job cluster|collective|all_?reduce|all_?gather|broadcast|hccl|mccl|"
    r"connection (reset|refused|closed|timed out)|heartbeat|scheduler",
    re.I,
)


def failure_kind(error: str, message: str, *, stage: str, log: Path | None = None) -> FailureKind:
    """The class of an exception by its type, its message and the stage; MindSpore puts most of it into the message.

    A scheduler that gets no port says so in its log alone.
    """
    if error in _BY_TYPE:
        return _BY_TYPE[error]
    if _DISK.search(message):
        return "disk"
    if _MEMORY.search(message):
        return "oom"
    if _PORT.search(message) or (stage == "join" and log is not None and _PORT.search(_head(log))):
        return "port"
    if stage == "join" or _COMM.search(message):
        return "comm"
    return "compile" if stage == "compile" else "code"


def _head(log: Path) -> str:
    return _part(log, slice(20_000))


def _tail(log: Path) -> str:
    return _part(log, slice(-2_000, None))


def _part(log: Path, part: slice) -> str:
    """These bytes of a log, which may be missing."""
    with suppress(OSError), log.open("rb") as file:
        start, end, _ = part.indices(os.fstat(file.fileno()).st_size)
        file.seek(start)
        return file.read(end - start).decode("utf-8", "replace")
    return ""


def kernel_kills() -> int:
    """How many processes of this control group, else of this machine, the kernel's OOM killer has killed so far."""
    known = (kills for group in memory_groups() if (kills := group.kills()) is not None)
    return next(known, number_of(Path("/proc/vmstat"), "oom_kill") or 0)


def disk_trouble(folder: Path) -> str | None:
    """Why nothing can be written to a folder: its disk is full, or read-only."""
    try:
        disk = os.statvfs(folder)
    except OSError as error:
        return error.strerror
    if disk.f_flag & os.ST_RDONLY:
        return os.strerror(errno.EROFS)
    blocks = disk.f_bfree if os.geteuid() == 0 else disk.f_bavail  # some are reserved for root
    no_files = disk.f_files > 0 and disk.f_favail == 0
    return os.strerror(errno.ENOSPC) if blocks * disk.f_frsize < LEAST_FREE or no_files else None


_TIMED_OUT = re.compile(r"The node: (\d+) is timed out")
"""The scheduler then has the workers killed that it still reaches."""
_GONE = re.compile(r"Worker process (\d+) exit with exception")


def disappeared(statuses: list[WorkerStatus], command: Command) -> Failure | None:
    """A process of this host that disappeared without reporting an error, as one that was killed."""
    if command.workers == 1:  # alone, its signal is the exit code
        return None
    gone = [status for status in statuses if status.stage.limit and status.has_disappeared()]
    if ranks := [status for status in gone if status.is_worker]:
        # msrun kills the others when it notices that one is gone.
        noticed = _noticed(command) if len(ranks) > 1 else []
        first = next((status for pid in noticed for status in ranks if status.pid == pid), ranks[0])
        if command.nodes > 1 and (lost := _TIMED_OUT.search(_tail(command.logs / "scheduler.log"))):
            message = f"rank {lost[1]} was out of reach: msrun's scheduler heard nothing of it any more"
            return Failure("comm", int(lost[1]), first.stage.value, message)
        return Failure("killed", first.rank, first.stage.value, "the process disappeared without reporting an error")
    # The scheduler never says that it is done: it ends when all workers have.
    at_work = any(s.stage not in (Stage.DONE, Stage.STOPPED) for s in statuses if s.is_worker)
    if gone and at_work:
        return Failure("killed", None, "scheduler", "msrun's scheduler disappeared without reporting an error")
    return None


def _noticed(command: Command) -> list[int]:
    """The pids whose end msrun reports, the first one first."""
    with suppress(OSError):
        return [int(pid) for pid in _GONE.findall(command.log.read_text(errors="replace"))]
    return []


def first_error(statuses: list[WorkerStatus], command: Command) -> Failure | None:
    """The earliest exception that a worker of the attempt reported."""
    report = first_report(statuses, scheduler_log=command.logs / "scheduler.log")
    if report is None:
        return None
    if report.kind == "port" and command.port is not None:
        report = replace(report, message=f"msrun's scheduler cannot listen on port {command.port}")
    rank = report.rank if report.rank is not None else SCHEDULER
    return replace(report, log=log_of(command, rank))


def first_report(statuses: list[WorkerStatus], *, scheduler_log: Path | None = None) -> Failure | None:
    """The earliest exception that a worker reported; None where none did."""
    errors = [(status.rank, status.error) for status in statuses if status.error]
    if not errors:
        return None
    rank, error = min(errors, key=lambda pair: pair[1].time)
    log = scheduler_log if rank == SCHEDULER else None
    kind = failure_kind(error.type, error.message, stage=error.stage.value, log=log)
    message = f"{error.type}: {error.message}"
    return Failure(kind, None if rank == SCHEDULER else rank, error.stage.value, message, error.where)


def first_cause(returncode: int | None, command: Command, folder: RunDir) -> Failure:
    """Why an attempt that ended with `returncode` failed; None is a process that could not be killed."""
    statuses = read_statuses(folder)
    if reported := first_error(statuses, command):
        return reported
    kind: FailureKind = "code"
    if returncode is None:
        message = "cannot be killed"
    elif returncode < 0:
        message = f"ended by signal {-returncode} ({_signal_name(-returncode)})"
        kind = "killed" if -returncode in (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP) else "code"
    elif returncode == 0:
        message = "ended with exit code 0 but wrote no result"
    else:
        message = f"ended with exit code {returncode}"
    if command.workers > 1:
        message = f"msrun {message}"
    rank = statuses[-1].rank if len(statuses) == 1 else None
    return Failure(kind, rank, statuses[-1].stage.value if statuses else "start", message)


def _signal_name(number: int) -> str:
    with suppress(ValueError):
        return signal.Signals(number).name
    return "a real-time signal"


def with_hindsight(failure: Failure, command: Command, folder: RunDir, *, kernel_kills_before: int) -> Failure:
    """The failure with what only the system knows: memory ran out, the disk is full; and with its log."""
    if failure.kind in ("killed", "data") and kernel_kills() > kernel_kills_before:
        failure = replace(failure, kind="oom", message=f"{failure.message}: killed by the kernel's OOM killer")
    if failure.kind in ("killed", "code") and failure.where is None and (line := _no_memory(command, failure.rank)):
        failure = replace(failure, kind="oom", message=f"{failure.message}: {line}")
    # On a full disk no worker can report why it ended.
    if failure.kind in ("killed", "code") and failure.where is None and (trouble := disk_trouble(folder.path)):
        failure = Failure("disk", None, failure.stage, f"{folder.path}: {trouble}; {failure.message}")
    return failure if failure.log else replace(failure, log=log_of(command, failure.rank))


def _no_memory(command: Command, rank: int | None) -> str | None:
    """The last words of a process that had not even the memory to report that there was none."""
    lines = _tail(log_of(command, rank)).splitlines()[-3:]
    return next((line.strip()[:200] for line in lines if _MEMORY.search(line)), None)


def log_of(command: Command, rank: int | None) -> Path:
    """The log to read for a rank, by msrun's names."""
    worker = command.logs / ("scheduler.log" if rank == SCHEDULER else f"worker_{rank}.log")
    return worker if command.workers > 1 and worker.exists() else command.log
