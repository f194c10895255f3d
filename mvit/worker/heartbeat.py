"""What a worker says of itself: status/<rank>.json, read by the parent."""

import os
import threading
import time
import traceback
from contextlib import suppress
from pathlib import Path

from mvit.files import write_json
from mvit.process import launcher_is_gone, process_start

HEARTBEAT_S = 1.0
OURS = Path(__file__).resolve().parents[1]
"""Our own code; .venv is beside it."""


class Heartbeat:
    """Stage, step, heartbeat and error of this process; a thread writes the file once a second."""

    def __init__(self, path: Path, *, rank: int) -> None:
        self.path = path
        self.content = {
            "rank": rank,
            "pid": os.getpid(),
            "started": process_start(os.getpid()),
            "stage": "start",
            "step": 0,
            "marks": 0,
            "error": None,
        }
        self.lock = threading.Lock()
        self._tell()
        threading.Thread(target=self._beat, daemon=True, name="heartbeat").start()

    def stage(self, stage: str) -> None:
        self.content["stage"] = stage
        self.mark()
        self._tell()

    def step(self, step: int) -> None:
        self.content["step"] = step
        self.mark()

    def mark(self) -> None:
        """Count a place that every worker comes by, as before it waits for the others: who has fewer is waited for."""
        self.content["marks"] += 1  # written by the next heartbeat

    def failed(self, error: BaseException) -> None:
        """Record the exception, its last line and the last place in our own code."""
        frames = [f for f in traceback.extract_tb(error.__traceback__) if Path(f.filename).is_relative_to(OURS)]
        self.content["error"] = {
            "type": type(error).__name__,
            "message": _first_words(str(error)),
            "where": f"{Path(frames[-1].filename).relative_to(OURS.parent)}:{frames[-1].lineno}" if frames else None,
            "stage": self.content["stage"],
            "time": time.time(),
        }
        self.content["stage"] = "failed"  # no mark: nobody else comes by here
        self._tell()

    def _beat(self) -> None:
        while True:
            time.sleep(HEARTBEAT_S)
            if launcher_is_gone():
                os._exit(1)  # nobody reads what this would compute
            self._tell()

    def _tell(self) -> None:
        # A full disk is no reason to stop; the next heartbeat tries again.
        with self.lock, suppress(OSError):
            write_json(self.path, {**self.content, "time": time.time()})


def _first_words(text: str) -> str:
    """The first line that says something; a heading that ends in a colon is joined with what follows."""
    lines = [line.strip("- ") for line in text.splitlines()]
    lines = [line for line in lines if line]
    heading = len(lines) > 1 and lines[0].endswith(":")
    return " ".join(lines[: 2 if heading else 1])
