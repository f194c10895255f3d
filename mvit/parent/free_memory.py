"""Free memory: what this machine, or a control group that this process runs in, still has."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mvit.parent.memory_groups import SYSTEM, memory_groups


@dataclass(frozen=True)
class FreeMemory:
    bytes: int
    where: str
    """Empty for the machine, else which limit leaves less."""


def free_memory(system: Path = SYSTEM) -> FreeMemory:
    free = {
        name: int(value.split()[0]) * 1024
        for name, _, value in (line.partition(":") for line in (system / "proc/meminfo").read_text().splitlines())
        if value
    }["MemAvailable"]
    least = min((left for group in memory_groups(system) if (left := group.left()) is not None), default=free)
    return FreeMemory(least, " in the control group") if least < free else FreeMemory(free, "")


def gib(size: float) -> str:
    return f"{size / 2**30:.1f} GiB"
