"""Who looks after a run: launcher.json, and whether that process still lives.

end.json says how the run ended. A run with a launcher that is dead and without an end is an orphan.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, cast

from mvit.launch.supervise import statuses
from mvit.process import process_start
from mvit.rundir import RunDir, RunDirError, known, must_be_written, write_json

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
    with must_be_written(folder.path), _locked(folder.path):
        deadline = time.monotonic() + LEAVE_S
        while (reason := alive(folder)) and _are_leaving(folder) and time.monotonic() < deadline:
            time.sleep(0.1)
        if reason:
            raise RunDirError(f"{folder.path} is still running: {reason}; stop it first")
        write_json(folder.launcher, {**_myself(), "time": time.time(), "room": " " * ROOM})
        folder.end.unlink(missing_ok=True)


def alive(folder: RunDir) -> str | None:
    """Which process of the run lives, in words."""
    owner = _launcher(folder)
    if owner and owner.get("host") != socket.gethostname():
        fresh = [s for s in statuses(folder) if time.time() - s["time"] < ELSEWHERE_S]
        return f"on {owner.get('host')}" if fresh and not known(folder.end) else None
    if owner and owner.get("boot") != _boot():
        return None  # pids and start times begin anew with the machine
    if owner and owner["pid"] != os.getpid() and lives(folder) and not known(folder.end):
        return f"its launcher is process {owner['pid']}"
    workers = [status for status in statuses(folder) if process_start(status["pid"]) == status["started"]]
    return f"process {workers[0]['pid']} of it has not ended" if workers else None


def _are_leaving(folder: RunDir) -> bool:
    """Whether only workers are left, of a launcher of this machine."""
    owner = _launcher(folder)
    return bool(owner) and owner.get("host") == socket.gethostname() and not lives(folder)


def lives(folder: RunDir) -> bool:
    """Whether the run's launcher is a live process of this machine; it may be busy with another trial."""
    owner = _launcher(folder)
    mine = owner and owner.get("host") == socket.gethostname() and owner.get("boot") == _boot()
    return bool(mine and owner and process_start(owner["pid"]) == owner["started"])


def is_orphan(folder: RunDir) -> bool:
    """Whether the run was this machine's, has no end, and nobody left who could record one."""
    owner = _launcher(folder)
    if not owner or owner.get("host") != socket.gethostname() or folder.end.exists():
        return False
    return not lives(folder) and alive(folder) is None


def record_end(folder: RunDir, status: str, *, exit_code: int | None, error: Mapping[str, Any] | None) -> None:
    """Say how the run ended, before its mirror is told."""
    content = {"status": status, "exit_code": exit_code, "error": error, "time": time.time(), "mirrored": None}
    try:
        write_json(folder.end, content)
    except OSError:  # a full disk
        _record_in_place(folder, content)


def recorded_in_place(folder: RunDir) -> dict[str, Any] | None:
    """The end that was recorded on a full disk."""
    end = (_launcher(folder) or {}).get("end")
    if not isinstance(end, dict) or not end.keys() >= {"status", "exit_code", "error"}:
        return None
    return cast(dict[str, Any], end)


def _record_in_place(folder: RunDir, content: dict[str, Any]) -> None:
    """Write over the room that launcher.json has for an end: a full disk still takes what needs no more of it."""
    launcher = _launcher(folder)
    if launcher is None:
        return
    size = folder.launcher.stat().st_size
    for error in (content["error"], None):  # its message may be too long
        text = json.dumps({**launcher, "room": "", "end": {**content, "error": error}}).encode()
        if len(text) <= size:
            with suppress(OSError), folder.launcher.open("r+b", buffering=0) as file:
                file.write(text.ljust(size))
                os.fsync(file.fileno())
            return


def record_mirrored(folder: RunDir, *, mirrored: bool) -> None:
    """Say whether MLflow knows the end, too."""
    content = known(folder.end)
    if content:
        with suppress(OSError):
            write_json(folder.end, {**content, "mirrored": mirrored})


def _launcher(folder: RunDir) -> dict[str, Any] | None:
    """What launcher.json says; None for one that is missing, torn or another's."""
    said = known(folder.launcher)
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
