"""The heartbeat: status/<rank>.json, written once a second by a thread of the worker."""

import os
import socket
import threading
import time
import traceback
from contextlib import suppress
from pathlib import Path

from mvit.process import launcher_is_gone, process_start
from mvit.rundir.status import Stage, WorkerError, WorkerStatus, write_status

HEARTBEAT_S = 1.0
PACKAGE = Path(__file__).resolve().parents[1]
"""mvit's own code."""


class Heartbeat:
    """Stage, step, marks and error of this process."""

    def __init__(self, path: Path, *, rank: int) -> None:
        self.path = path
        self.status = WorkerStatus(
            rank=rank,
            host=socket.gethostname(),
            pid=os.getpid(),
            started=process_start(os.getpid()) or 0,
            stage=Stage.START,
            step=0,
            marks=0,
            error=None,
            time=time.time(),
        )
        self.lock = threading.Lock()
        self._write()
        threading.Thread(target=self._beat, daemon=True, name="heartbeat").start()

    def stage(self, stage: Stage) -> None:
        """Enter a stage; the parent sees it at once."""
        self._change(stage=stage, marks=self.status.marks + 1)
        self._write()

    def step(self, step: int) -> None:
        """A step is done; the parent sees it with the next heartbeat."""
        self._change(step=step, marks=self.status.marks + 1)

    def mark(self) -> None:
        """Pass a point that every worker passes, as before it waits for the others: one with fewer is waited for."""
        self._change(marks=self.status.marks + 1)

    def failed(self, error: BaseException) -> None:
        """Report the exception, its first words and the last place in mvit's own code."""
        frames = [f for f in traceback.extract_tb(error.__traceback__) if Path(f.filename).is_relative_to(PACKAGE)]
        where = f"{Path(frames[-1].filename).relative_to(PACKAGE.parent)}:{frames[-1].lineno}" if frames else None
        report = WorkerError(
            type=type(error).__name__,
            message=_first_words(str(error)),
            where=where,
            stage=self.status.stage,
            time=time.time(),
        )
        self._change(stage=Stage.FAILED, error=report)  # no mark: nobody else passes here
        self._write()

    def _change(self, **fields: object) -> None:
        with self.lock:
            self.status = self.status.model_copy(update=fields)

    def _beat(self) -> None:
        while True:
            time.sleep(HEARTBEAT_S)
            if launcher_is_gone():
                os._exit(1)  # nobody would read what this computes
            self._write()

    def _write(self) -> None:
        # A full disk is no reason to stop; the next heartbeat tries again.
        with self.lock, suppress(OSError):
            write_status(self.path, self.status.model_copy(update={"time": time.time()}))


def _first_words(text: str) -> str:
    """The first line that says something; a heading that ends in a colon is joined with what follows."""
    lines = [line.strip("- ") for line in text.splitlines()]
    lines = [line for line in lines if line]
    heading = len(lines) > 1 and lines[0].endswith(":")
    return " ".join(lines[: 2 if heading else 1])
