"""launcher.json: which process looks after a run, and whether it still lives.

end.json says how a run ended. A run whose launcher is dead and which has no end is an orphan.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from pydantic import ConfigDict

from mvit.config import Frozen
from mvit.errors import RunDirError
from mvit.files import lock, read_json_bytes, read_mapping, write_json
from mvit.process import process_start
from mvit.rundir.paths import RunDir, writable
from mvit.rundir.status import read_statuses

ROOM = 2000
"""Bytes of launcher.json reserved for an end that nothing else on the disk has room for."""
LEAVE_S = 5.0
"""Longest wait for the workers of a launcher that was killed: they notice within a second or two, and end."""


class Launcher(Frozen):
    """launcher.json."""

    model_config = ConfigDict(extra="ignore")

    pid: int
    started: int | None
    """Start of the process, in clock ticks since boot."""
    host: str
    boot: str
    """The boot of the host: pids and start times begin anew with it."""
    room: str = ""
    end: Any = None

    @property
    def is_local(self) -> bool:
        return self.host == socket.gethostname()

    def lives(self) -> bool:
        """Whether it is a live process of this host; it may be busy with another run by now."""
        return self.is_local and self.boot == _boot() and process_start(self.pid) == self.started


_executing: set[Path] = set()
_executing_lock = threading.Lock()


@contextmanager
def owned(folder: RunDir) -> Generator[None]:
    """Make this process the run's launcher for a while: nobody else executes it meanwhile, nor another thread.

    Raises `RunDirError` while another launcher, or a worker of it, lives, or where the folder cannot be written.
    """
    path = folder.path.resolve()
    with _executing_lock:
        if path in _executing:
            raise RunDirError(f"{folder.path} is still running in this process; stop it first")
        _executing.add(path)
    try:
        claim(folder)
        yield
    finally:
        with _executing_lock:
            _executing.discard(path)


def claim(folder: RunDir) -> None:
    """Write launcher.json in this process's name, and forget an earlier end; raises as `owned` does."""
    with writable(folder.path), lock(folder.path):
        must_be_over(folder)
        if (read_mapping(folder.end) or {}).get("status") == "FINISHED":  # since the caller looked
            raise RunDirError(f"{folder.path} is FINISHED")
        pid, host = os.getpid(), socket.gethostname()
        me = Launcher(pid=pid, started=process_start(pid), host=host, boot=_boot(), room=" " * ROOM, end=None)
        write_json(folder.launcher, me.model_dump(mode="json"))
        folder.end.unlink(missing_ok=True)


def must_be_over(folder: RunDir) -> None:
    """Raises `RunDirError` while a process of the run lives; waits for workers whose launcher was killed."""
    deadline = time.monotonic() + LEAVE_S
    while (reason := alive(folder)) and _is_leaving(folder) and time.monotonic() < deadline:
        time.sleep(0.1)
    if reason:
        raise RunDirError(f"{folder.path} is still running: {reason}")


def alive(folder: RunDir) -> str | None:
    """Which process of the run is alive, in words, and what to do about it.

    That of another host is, until that host has recorded an end.
    """
    launcher = read_launcher(folder)
    if launcher and not launcher.is_local:
        gone = f"if that host is gone, remove {folder.launcher}"
        return None if folder.end.exists() else f"its launcher is on {launcher.host}; {gone}"
    if launcher and launcher.boot != _boot():
        return None
    if launcher and launcher.pid != os.getpid() and launcher.lives() and not folder.end.exists():
        return f"its launcher is process {launcher.pid}; stop it first"
    workers = [status for status in read_statuses(folder) if status.lives()]
    return f"its process {workers[0].pid} has not ended; stop it first" if workers else None


def launcher_lives(folder: RunDir) -> bool:
    """Whether the run's launcher is a live process of this host; it may be busy with another run by now."""
    launcher = read_launcher(folder)
    return launcher is not None and launcher.lives()


def is_orphan(folder: RunDir) -> bool:
    """Whether the run was this host's, has no end, and nobody left who could record one."""
    launcher = read_launcher(folder)
    if not launcher or not launcher.is_local or folder.end.exists():
        return False
    return not launcher.lives() and alive(folder) is None


def read_launcher(folder: RunDir) -> Launcher | None:
    """launcher.json; None where it is missing, torn or something else."""
    with suppress(OSError, ValueError):
        return Launcher.model_validate_json(read_json_bytes(folder.launcher))
    return None


def _is_leaving(folder: RunDir) -> bool:
    """Whether only workers are left, of a launcher of this host."""
    launcher = read_launcher(folder)
    return launcher is not None and launcher.is_local and not launcher.lives()


def _boot() -> str:
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return ""
