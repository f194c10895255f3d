"""Why an attempt failed: its first cause, and the class that it is of.

config data compile oom nan comm port checkpoint disk code killed hang
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

Kind = Literal[
    "config", "data", "compile", "oom", "nan", "comm", "port", "checkpoint", "disk", "code", "killed", "hang"
]
MAY_NOT_COME_BACK: frozenset[Kind] = frozenset(("comm", "port", "killed", "hang"))
"""What `train.max_restarts` is for; want of memory would come back."""

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


@dataclass(frozen=True)
class Failure:
    """The first cause."""

    kind: Kind
    rank: int | None
    stage: str
    message: str
    where: str | None = None
    log: Path | None = None

    def lines(self) -> Iterator[str]:
        """One block for a person."""
        place = f" at {self.where}" if self.where else ""
        rank = "" if self.rank is None else f"rank {self.rank}, "
        yield f"failed ({rank}{self.stage}, {self.kind}){place}: {self.message}"
        if self.log is not None:
            yield f"log: {self.log}"

    def fields(self) -> dict[str, Any]:
        """As error.json holds it."""
        return {**vars(self), "log": str(self.log) if self.log else None}


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
