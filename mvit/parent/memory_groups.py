"""The control groups that bound this process's memory: its own, and those that it lies in."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

SYSTEM = Path("/")


@dataclass(frozen=True)
class MemoryGroup:
    folder: Path
    """Where the kernel has its files, if it shows them."""
    is_version_1: bool

    def left(self) -> int | None:
        """Bytes until its limit; None without one, and where its files are not to be seen."""
        limit, usage, cache = (
            ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
            if self.is_version_1
            else ("memory.max", "memory.current", "inactive_file")
        )
        with suppress(OSError, ValueError):  # without a limit, version 2 says "max", and version 1 a huge number
            # The kernel counts files that were read as used, and drops those of the inactive list before it refuses.
            reclaimable = number_of(self.folder / "memory.stat", cache) or 0
            return int((self.folder / limit).read_text()) - int((self.folder / usage).read_text()) + reclaimable
        return None

    def kills(self) -> int | None:
        """How many of its processes the kernel's OOM killer has killed so far; None where that is not to be seen."""
        return number_of(self.folder / ("memory.oom_control" if self.is_version_1 else "memory.events"), "oom_kill")


def memory_groups(system: Path = SYSTEM) -> list[MemoryGroup]:
    """The group of this process, then those around it, up to the root; nothing where the kernel has no groups.

    In a container, the group's own path is often hidden, and the root is the group.
    """
    found: list[MemoryGroup] = []
    with suppress(OSError, ValueError):
        for line in (system / "proc/self/cgroup").read_text(encoding="utf-8").splitlines():
            _, controllers, group = line.split(":", 2)
            if controllers in ("", "memory"):
                root, inside = system / "sys/fs/cgroup" / controllers, Path(group.lstrip("/"))
                found += [MemoryGroup(root / place, controllers == "memory") for place in (inside, *inside.parents)]
    return found


def number_of(file: Path, key: str) -> int | None:
    """The number after a key of the kernel's; None where the file, or the key in it, is missing."""
    with suppress(OSError, ValueError):
        for line in file.read_text(encoding="utf-8").splitlines():
            if line.startswith(f"{key} "):
                return int(line.split()[1])
    return None
