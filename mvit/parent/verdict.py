"""Why an attempt failed: its first cause, and the class that it is of.

config data compile oom nan comm port checkpoint disk code killed hang
"""

from __future__ import annotations

import errno
import os
import re
import signal
from contextlib import suppress
from pathlib import Path
from typing import Any

from mvit.parent.command import Command
from mvit.process import process_start
from mvit.rundir.ending import Failure, Kind
from mvit.rundir.paths import RunDir
from mvit.rundir.status import read_statuses

LEAST_FREE = 1 << 14
"""Bytes without which a disk is full: a status file and a line of the journal have some hundred."""

_BY_TYPE: dict[str, Kind] = {
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
}
_MEMORY = re.compile(r"out of memory|cannot allocate memory|bad_alloc|memory not enough|allocat\w* \w* ?memory", re.I)
_DISK = re.compile(rf"\[Errno ({errno.ENOSPC}|{errno.EROFS}|{errno.EDQUOT})\]")
_PORT = re.compile(r"address already in use|failed to (init|create) the tcp server|\bbind\b.*\b(fail|error)", re.I)
_COMM = re.compile(
    r"distributed job cluster|collective|all_?reduce|all_?gather|broadcast|hccl|mccl|"
    r"connection (reset|refused|closed|timed out)|heartbeat|scheduler",
    re.I,
)


def kind_of(error: str, message: str, *, stage: str, log: Path | None = None) -> Kind:
    """The class of an exception by its type, its message and the stage; MindSpore says most only in its message.

    A scheduler without a port says so in its log alone.
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


def _head(log: Path, limit: int = 20_000) -> str:
    with suppress(OSError), log.open("rb") as file:
        return file.read(limit).decode("utf-8", "replace")
    return ""


def kernel_kills() -> int:
    """Processes of this control group, else of this machine, that the kernel has killed so far for want of memory."""
    with suppress(OSError, ValueError):
        for line in Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines():
            _, controllers, group = line.split(":", 2)
            if controllers in ("", "memory"):
                root = "/sys/fs/cgroup/memory" if controllers else "/sys/fs/cgroup"
                name = "memory.oom_control" if controllers else "memory.events"
                # In a container, the group's own path is often not to be seen, and the root is the group.
                for place in (Path(f"{root}{group}") / name, Path(root) / name):
                    if (found := _count(place)) is not None:
                        return found
    return _count(Path("/proc/vmstat")) or 0


def _count(file: Path) -> int | None:
    with suppress(OSError, ValueError):
        for line in file.read_text(encoding="utf-8").splitlines():
            if line.startswith("oom_kill "):
                return int(line.split()[1])
    return None


def disk_trouble(folder: Path) -> str | None:
    """Why nothing can be written there: the disk is full, or read-only."""
    try:
        disk = os.statvfs(folder)
    except OSError as error:
        return error.strerror
    if disk.f_flag & os.ST_RDONLY:
        return os.strerror(errno.EROFS)
    blocks = disk.f_bfree if os.geteuid() == 0 else disk.f_bavail  # some are kept for root
    no_files = disk.f_files > 0 and disk.f_favail == 0
    return os.strerror(errno.ENOSPC) if blocks * disk.f_frsize < LEAST_FREE or no_files else None


_GONE = re.compile(r"Worker process (\d+) exit with exception")


def lost(workers: list[dict[str, Any]], command: Command) -> Failure | None:
    """A process that is gone without having said why: killed, for instance for want of memory."""
    if command.workers == 1:  # alone, its signal is the exit code
        return None
    at_work = [status for status in workers if status["stage"] not in ("done", "failed", "stopped")]
    gone = [status for status in at_work if process_start(status["pid"]) != status["started"]]
    if ranks := [status for status in gone if status["rank"] >= 0]:
        noticed = _noticed(command) if len(ranks) > 1 else []  # msrun kills the others when it sees that one is gone
        first = next((status for pid in noticed for status in ranks if status["pid"] == pid), ranks[0])
        return Failure("killed", first["rank"], first["stage"], "the process is gone without a word")
    # The scheduler never says that it is done: it ends when all workers have.
    if gone and any(status["stage"] not in ("done", "stopped") for status in workers if status["rank"] >= 0):
        return Failure("killed", None, "scheduler", "msrun's scheduler is gone without a word")
    return None


def _noticed(command: Command) -> list[int]:
    """The pids whose end msrun speaks of, the first one first."""
    with suppress(OSError):
        return [int(pid) for pid in _GONE.findall((command.logs / "launch.log").read_text(errors="replace"))]
    return []


def first_cause(returncode: int | None, command: Command, folder: RunDir) -> Failure:
    workers = read_statuses(folder)
    if told := first_error(workers, command):
        return told
    kind: Kind = "code"
    if returncode is None:
        message = "cannot be ended"
    elif returncode < 0:
        message = f"ended by signal {-returncode} ({signal.Signals(-returncode).name})"
        kind = "killed" if -returncode in (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP) else "code"
    elif returncode == 0:
        message = "ended with exit code 0 but wrote no result"
    else:
        message = f"ended with exit code {returncode}"
    if command.workers > 1:
        message = f"msrun {message}"
    rank = workers[-1]["rank"] if len(workers) == 1 else None
    return Failure(kind, rank, workers[-1]["stage"] if workers else "start", message)


def first_error(workers: list[dict[str, Any]], command: Command) -> Failure | None:
    """The earliest exception that a worker wrote down."""
    failed = sorted((s for s in workers if s["error"]), key=lambda s: s["error"]["time"])
    if not failed:
        return None
    error, rank = failed[0]["error"], failed[0]["rank"]
    log = log_of(command, rank)
    kind = kind_of(error["type"], error["message"], stage=error["stage"], log=log)
    message = f"{error['type']}: {error['message']}"
    if kind == "port" and command.port is not None:
        message = f"msrun's scheduler cannot listen on port {command.port}"
    return Failure(kind, None if rank < 0 else rank, error["stage"], message, error["where"], log)


def log_of(command: Command, rank: int | None) -> Path:
    worker = command.logs / ("scheduler.log" if rank == -1 else f"worker_{rank}.log")  # msrun's names
    return worker if command.workers > 1 and worker.exists() else command.logs / "launch.log"
