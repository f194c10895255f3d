"""Processes: what identifies one, how it dies with its launcher, and which ones belong to a launch.

A launch marks its processes with an environment variable, which every descendant inherits: neither a new session nor a
new parent, both of which msrun's workers get, hides a process from its launcher.
"""

from __future__ import annotations

import ctypes
import os
import platform
import select
import signal
import time
from contextlib import suppress
from pathlib import Path

MARK = "MVIT_LAUNCH"
"""`<pid>:<start>` of the launcher, and a random part per launch."""
PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None, use_errno=True)
_MEMFD_CREATE = {"x86_64": 319, "aarch64": 279}
"""Linux's number of the call, by machine."""
_MFD_CLOEXEC = 1
_POLL_S = 0.5


def process_start(pid: int) -> int | None:
    """Start time of a live process in clock ticks since boot; None if it has exited or is a zombie.

    Pids are reused; a pid together with its start time is unique.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else int(fields[19])


def since_1970(ticks: int) -> float:
    """Seconds since 1970 of a moment in clock ticks since boot."""
    return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) + ticks / os.sysconf("SC_CLK_TCK")


def is_stopped(pid: int) -> bool:
    """Whether the process is stopped, by SIGSTOP or a debugger."""
    try:
        return (
            Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[0]
            in "Tt"
        )
    except OSError:
        return False


def new_mark(token: str) -> str:
    """The mark for a launch by this process."""
    return f"{os.getpid()}:{process_start(os.getpid())}:{token}"


def marked(mark: str) -> set[int]:
    """Pids of the live processes of a launch."""
    setting = f"{MARK}={mark}".encode()
    pids: set[int] = set()
    for entry in Path("/proc").iterdir():
        with suppress(OSError):
            if entry.name.isdigit() and setting in (entry / "environ").read_bytes().split(b"\0"):
                pid = int(entry.name)
                if process_start(pid) is not None:
                    pids.add(pid)
    return pids


def wait_for_end(pid: int) -> None:
    """Return once a process has ended."""
    start = process_start(pid)
    try:
        process = os.pidfd_open(pid)
    except (AttributeError, OSError):  # a Python built on an older system lacks it, as conda's, or else this kernel
        while start is not None and process_start(pid) == start:
            time.sleep(_POLL_S)
        return
    select.select([process], [], [])
    os.close(process)


def memory_file(name: str) -> int:
    """The descriptor of a new file in memory, which other processes open as /proc/PID/fd/NUMBER; raises `OSError`."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create(name)
    # A Python built on an older system lacks it, as conda's; Linux has it since 3.17.
    descriptor = _LIBC.syscall(_MEMFD_CREATE[platform.machine()], name.encode(), _MFD_CLOEXEC)
    if descriptor < 0:
        raise OSError(number := ctypes.get_errno(), os.strerror(number))
    return int(descriptor)


def launcher_is_gone() -> bool:
    """Whether the launcher of this process has ended; False if it has none."""
    pid, _, rest = os.environ.get(MARK, "").partition(":")
    return bool(pid) and str(process_start(int(pid))) != rest.partition(":")[0]


def stop_with_parent() -> None:
    """Ask Linux to send SIGTERM when the parent process ends, however it does. Safe between fork and exec."""
    _LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def die_with_parent() -> None:
    """Ask Linux to send SIGKILL when the parent process ends: msrun leaves its workers behind.

    Safe between fork and exec: it takes no lock and imports nothing.
    """
    _LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
