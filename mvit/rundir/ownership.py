"""Ownership: which process looks after a run, and whether it still lives.

A run whose launcher is dead and which has no end.json is an orphan.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from mvit.errors import RunDirError
from mvit.files import lock
from mvit.rundir.ending import has_end_file, read_ending
from mvit.rundir.launcher import boot, read_launcher, write_launcher
from mvit.rundir.paths import RunDir, writable
from mvit.rundir.status import read_statuses

LEAVE_S = 5.0
"""Longest wait for the workers of a launcher that was killed: they notice within a second or two, and end."""


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
    """Write launcher.json in this process's name, and remove an earlier end and stop request; raises as `owned`."""
    with writable(folder.path), lock(folder.path):
        must_be_over(folder)
        ending = read_ending(folder)
        if ending and ending.status == "FINISHED":  # since the caller looked
            raise RunDirError(f"{folder.path} is FINISHED")
        folder.stop.unlink(missing_ok=True)  # a request that is written after this is for this execution
        write_launcher(folder)
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
        return None if read_ending(folder) else f"its launcher is on {launcher.host}; {gone}"
    if launcher and launcher.boot != boot():
        return None
    if launcher and launcher.pid != os.getpid() and launcher.lives() and not read_ending(folder):
        return f"its launcher is process {launcher.pid}; stop it first"
    workers = [status for status in read_statuses(folder) if status.lives()]
    return f"its process {workers[0].pid} has not ended; stop it first" if workers else None


def is_orphan(folder: RunDir) -> bool:
    """Whether the run was this host's, has no end.json, and nobody left who could write it."""
    launcher = read_launcher(folder)
    if not launcher or not launcher.is_local or has_end_file(folder):
        return False
    return not launcher.lives() and alive(folder) is None


def _is_leaving(folder: RunDir) -> bool:
    """Whether only workers are left, of a launcher of this host."""
    launcher = read_launcher(folder)
    return launcher is not None and launcher.is_local and not launcher.lives()
