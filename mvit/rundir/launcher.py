"""launcher.json: the process that looks after a run, and room for an end that a full disk would not take elsewhere."""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from pathlib import Path
from typing import Any

from pydantic import ConfigDict

from mvit.config import Frozen
from mvit.files import read_json_bytes, write_json
from mvit.process import process_start, since_1970
from mvit.rundir.job import machine_name, this_job
from mvit.rundir.paths import RunDir

ROOM = 2000
"""Bytes of launcher.json reserved for an end that nothing else on the disk has room for."""


class Launcher(Frozen):
    """launcher.json."""

    model_config = ConfigDict(extra="ignore")

    pid: int
    started: int | None
    """Start of the process, in clock ticks since boot."""
    began: float | None = None
    """The same in seconds since 1970."""
    host: str
    boot: str
    """The boot of the host: pids and start times begin anew with it."""
    job: str | None = None
    """The job of a scheduler that it is part of."""
    machine: str = ""
    """As that scheduler calls the host."""
    room: str = ""
    end: Any = None

    @property
    def is_local(self) -> bool:
        return self.host == socket.gethostname()

    def lives(self) -> bool:
        """Whether it is a live process of this host; it may be busy with another run by now."""
        return self.is_local and self.boot == boot() and process_start(self.pid) == self.started


def read_launcher(folder: RunDir) -> Launcher | None:
    """launcher.json; None where it is missing, torn or something else."""
    with suppress(OSError, ValueError):
        return Launcher.model_validate_json(read_json_bytes(folder.launcher))
    return None


def write_launcher(folder: RunDir) -> None:
    """Name this process."""
    pid, host = os.getpid(), socket.gethostname()
    started = process_start(pid)
    me = Launcher(
        pid=pid,
        started=started,
        began=None if started is None else since_1970(started),
        host=host,
        boot=boot(),
        job=this_job(),
        machine=machine_name(),
        room=" " * ROOM,
    )
    write_json(folder.launcher, me.model_dump(mode="json"))


def launcher_lives(folder: RunDir) -> bool:
    """Whether the run's launcher is a live process of this host; it may be busy with another run by now."""
    launcher = read_launcher(folder)
    return launcher is not None and launcher.lives()


def boot() -> str:
    """The id of this boot of the host; empty where the system has none."""
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return ""
