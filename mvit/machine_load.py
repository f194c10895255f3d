"""The load of the machine: what it does, and processor time that processes other than a launch's own have used."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from mvit.process import MARK, marked

SAMPLE_EVERY_S = 2.0
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


class Usage:
    """What the machine does, as system metrics under MLflow's names."""

    def __init__(self) -> None:
        self._time, self._busy_s = time.monotonic(), busy_s()
        self._is_first = True

    def sample(self) -> dict[str, float]:
        """Processor time in use since the last sample, percent of all cores, and memory in use, 10^6 bytes.

        Empty where the last sample is fresh.
        """
        now = time.monotonic()
        elapsed = now - self._time
        if elapsed <= 0.0 or (elapsed < SAMPLE_EVERY_S and not self._is_first):
            return {}
        busy = busy_s()
        share = (busy - self._busy_s) / (elapsed * (os.cpu_count() or 1))
        self._time, self._busy_s, self._is_first = now, busy, False
        return {
            "system/cpu_utilization_percentage": min(100.0, 100.0 * share),
            "system/system_memory_usage_megabytes": memory_in_use_mb(Path("/proc/meminfo").read_text()),
        }


def memory_in_use_mb(meminfo: str) -> float:
    """Of the whole machine, 10^6 bytes: what the kernel could not give to a new process; 0 where it does not say."""
    lines = (line.partition(":") for line in meminfo.splitlines())
    kib = {name: int(value.split()[0]) for name, _, value in lines if value.split()}
    return (kib.get("MemTotal", 0) - kib.get("MemAvailable", kib.get("MemTotal", 0))) * 1024 / 1e6
