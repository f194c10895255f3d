"""Processes of a run: what names one for good, how one ends with its launcher, which ones belong to a launch.

A launch marks its processes with a variable in their environment, which every descendant inherits: neither a session
of its own nor a new parent, both of which msrun's workers get, hides a process from its launcher.
"""

from __future__ import annotations

import ctypes
import os
import signal
from contextlib import suppress
from pathlib import Path

MARK = "MVIT_LAUNCH"
"""`<pid>:<start>` of the launcher, and a random part for each launch."""
PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None, use_errno=True)


def process_start(pid: int) -> int | None:
    """Start time of a live process in clock ticks since boot; None for one that is gone or a zombie.

    A pid is used again, a pid with its start time is not.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else int(fields[19])


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
    """The mark of a launch by this process."""
    return f"{os.getpid()}:{process_start(os.getpid())}:{token}"


def marked(mark: str) -> set[int]:
    """Pids of the live processes of a launch."""
    wanted = f"{MARK}={mark}".encode()
    found: set[int] = set()
    for entry in Path("/proc").iterdir():
        with suppress(OSError):
            if entry.name.isdigit() and wanted in (entry / "environ").read_bytes().split(b"\0"):
                pid = int(entry.name)
                if process_start(pid) is not None:
                    found.add(pid)
    return found


def launcher_is_gone() -> bool:
    """Whether the process that launched this one has ended; False for one that nobody launched."""
    pid, _, rest = os.environ.get(MARK, "").partition(":")
    return bool(pid) and str(process_start(int(pid))) != rest.partition(":")[0]


def die_with_parent() -> None:
    """Ask Linux for SIGKILL when the process that started this one ends: msrun leaves its workers behind.

    Also for the moment between fork and exec: it takes no lock, and imports nothing.
    """
    _LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
