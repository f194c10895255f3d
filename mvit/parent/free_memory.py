"""Free memory: what this machine, or the control group that this process runs in, still has."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

GROUPS = (
    ("/sys/fs/cgroup", "memory.max", "memory.current"),
    ("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes"),  # version 1
)


@dataclass(frozen=True)
class FreeMemory:
    bytes: int
    where: str
    """Empty for the machine, else which limit leaves less."""


def free_memory() -> FreeMemory:
    free = {
        name: int(value.split()[0]) * 1024
        for name, _, value in (line.partition(":") for line in Path("/proc/meminfo").read_text().splitlines())
        if value
    }["MemAvailable"]
    where = ""
    for folder, limit, usage in GROUPS:
        with suppress(OSError, ValueError):  # without a limit, version 2 says "max", and version 1 a huge number
            left = int((Path(folder) / limit).read_text()) - int((Path(folder) / usage).read_text())
            if left < free:
                free, where = left, " in the control group"
    return FreeMemory(free, where)


def gib(size: float) -> str:
    return f"{size / 2**30:.1f} GiB"
