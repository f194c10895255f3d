"""Who looks after a run: launcher.json, and whether that process still lives.

end.json says how the run ended. A run with a launcher that is dead and without an end is an orphan.
"""

from __future__ import annotations

import fcntl
import os
import socket
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from mvit.errors import RunDirError
from mvit.files import read_mapping, write_json
from mvit.process import process_start
from mvit.rundir.paths import RunDir, writable
from mvit.rundir.status import read_statuses

ELSEWHERE_S = 120.0
"""A run of another machine counts as alive while its workers have written in so many seconds."""
ROOM = 2000
"""Bytes of launcher.json that wait for an end that nothing else on the disk has room for."""
SAID = frozenset(("pid", "started", "host", "boot"))
"""What launcher.json holds, whatever else."""
LEAVE_S = 5.0
"""Longest wait for the workers of a launcher that was killed: within a second or two they see it and end."""


def claim(folder: RunDir) -> None:
    """Make this process the run's launcher; raises `RunDirError` while another one, or a worker of it, lives, or
    where the folder cannot be written.
    """
    with writable(folder.path), _locked(folder.path):
        deadline = time.monotonic() + LEAVE_S
        while (reason := alive(folder)) and _are_leaving(folder) and time.monotonic() < deadline:
            time.sleep(0.1)
        if reason:
            raise RunDirError(f"{folder.path} is still running: {reason}; stop it first")
        write_json(folder.launcher, {**_myself(), "time": time.time(), "room": " " * ROOM})
        folder.end.unlink(missing_ok=True)


def alive(folder: RunDir) -> str | None:
    """Which process of the run lives, in words."""
    owner = read_launcher(folder)
    if owner and owner.get("host") != socket.gethostname():
        fresh = [s for s in read_statuses(folder) if time.time() - s["time"] < ELSEWHERE_S]
        return f"on {owner.get('host')}" if fresh and not read_mapping(folder.end) else None
    if owner and owner.get("boot") != _boot():
        return None  # pids and start times begin anew with the machine
    if owner and owner["pid"] != os.getpid() and lives(folder) and not read_mapping(folder.end):
        return f"its launcher is process {owner['pid']}"
    workers = [status for status in read_statuses(folder) if process_start(status["pid"]) == status["started"]]
    return f"process {workers[0]['pid']} of it has not ended" if workers else None


def _are_leaving(folder: RunDir) -> bool:
    """Whether only workers are left, of a launcher of this machine."""
    owner = read_launcher(folder)
    return bool(owner) and owner.get("host") == socket.gethostname() and not lives(folder)


def lives(folder: RunDir) -> bool:
    """Whether the run's launcher is a live process of this machine; it may be busy with another trial."""
    owner = read_launcher(folder)
    mine = owner and owner.get("host") == socket.gethostname() and owner.get("boot") == _boot()
    return bool(mine and owner and process_start(owner["pid"]) == owner["started"])


def is_orphan(folder: RunDir) -> bool:
    """Whether the run was this machine's, has no end, and nobody left who could record one."""
    owner = read_launcher(folder)
    if not owner or owner.get("host") != socket.gethostname() or folder.end.exists():
        return False
    return not lives(folder) and alive(folder) is None


def read_launcher(folder: RunDir) -> dict[str, Any] | None:
    """What launcher.json says; None for one that is missing, torn or another's."""
    said = read_mapping(folder.launcher)
    return said if said and said.keys() >= SAID else None


def _myself() -> dict[str, Any]:
    pid = os.getpid()
    return {"pid": pid, "started": process_start(pid), "host": socket.gethostname(), "boot": _boot()}


def _boot() -> str:
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return ""


@contextmanager
def _locked(folder: Path) -> Generator[None]:
    """One process at a time; the lock ends with the process, and is no file that stays."""
    number = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # some network file systems know no locks
            fcntl.flock(number, fcntl.LOCK_EX)
        yield
    finally:
        os.close(number)
