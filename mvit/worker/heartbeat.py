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
from mvit.worker import faults

HEARTBEAT_S = 1.0
PACKAGE = Path(__file__).resolve().parents[1]
"""mvit's own code."""
SEAM = (Path(__file__).resolve(), Path(faults.__file__).resolve())
"""Where injected faults come from; to a reader, they happen at the line that called the heartbeat."""


class Heartbeat:
    """Stage, step, marks and error of this process; what is injected into it strikes here."""

    def __init__(self, path: Path, *, rank: int, fault: faults.Fault | None = None) -> None:
        self.path, self.fault = path, fault
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
        self.lock, self.writing = threading.Lock(), threading.Lock()  # a step never waits for the disk
        self._write()
        threading.Thread(target=self._beat, daemon=True, name="heartbeat").start()

    def stage(self, stage: Stage) -> None:
        """Enter a stage; the parent sees it at once. Raises `ValueError` for an unknown one."""
        self._change(stage=Stage(stage), marks=self.status.marks + 1)
        self._write()
        if self.fault is not None and self.fault.at is stage:
            self.fault.strike()

    def step(self, step: int) -> None:
        """A step is done; the parent sees it with the next heartbeat."""
        self._change(step=step, marks=self.status.marks + 1)
        if self.fault is not None and self.fault.at == step:
            self.fault.strike()

    def mark(self) -> None:
        """Pass a point that every worker passes, such as a wait for the others: they wait for the one with fewest."""
        self._change(marks=self.status.marks + 1)

    def failed(self, error: BaseException) -> None:
        """Report an exception: its message, and the last line of mvit's own code that it passed."""
        report = WorkerError(
            type=type(error).__name__,
            message=_first_words(str(error)),
            where=_place_of(error),
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
        with self.writing, suppress(OSError):
            write_status(self.path, self.status.model_copy(update={"time": time.time()}))


def _place_of(error: BaseException) -> str | None:
    """`file:line` in mvit's own code, relative to the checkout."""
    frames = [(Path(frame.filename), frame.lineno) for frame in traceback.extract_tb(error.__traceback__)]
    own = [(path, line) for path, line in frames if path.is_relative_to(PACKAGE) and path not in SEAM]
    return f"{own[-1][0].relative_to(PACKAGE.parent)}:{own[-1][1]}" if own else None


def _first_words(text: str) -> str:
    """The first line that is not empty; a heading that ends in a colon is joined with the next one."""
    lines = [line.strip("- ") for line in text.splitlines()]
    lines = [line for line in lines if line]
    heading = len(lines) > 1 and lines[0].endswith(":")
    return " ".join(lines[: 2 if heading else 1])
