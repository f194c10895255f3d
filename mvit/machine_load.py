"""The load of the machine: processor time that processes other than a launch's own have used."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from mvit.process import MARK, marked

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def busy_s() -> float:
    """CPU time of all processes since the machine started, and what other virtual machines took from this one."""
    fields = Path("/proc/stat").read_text().partition("\n")[0].split()[1:9]
    user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, fields)
    return (user + nice + system + irq + softirq + steal) / _TICKS_PER_S


def cpu_s(pids: Iterable[int]) -> float:
    """CPU time that processes, and children that they have waited for, have used so far."""
    ticks = 0
    for pid in pids:
        with suppress(OSError):
            after_name = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
            ticks += sum(map(int, after_name[11:15]))
    return ticks / _TICKS_PER_S


def others_s() -> float:
    """CPU time that others than the processes of this launch have used so far; of two readings, the difference tells.

    What processes of the launch that have ended since had used counts as others', but for children of one that lives.
    """
    mark = os.environ.get(MARK)
    return busy_s() - cpu_s(marked(mark) if mark else {os.getpid()})
