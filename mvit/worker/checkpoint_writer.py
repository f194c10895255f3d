"""A thread that writes checkpoints, and what goes with the best, beside the training.

A step waits for the snapshot, not for the disk.
"""

import atexit
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mvit.rundir.checkpoints import Checkpoint, prune, set_tag
from mvit.rundir.sidecar import Sidecar
from mvit.worker.checkpoint import write


@dataclass(frozen=True)
class _Save:
    sidecar: Sidecar
    tensors: dict[str, np.ndarray]


@dataclass(frozen=True)
class _Evaluated:
    sidecar: Sidecar
    is_best: bool


@dataclass(frozen=True)
class _Write:
    sidecar: Sidecar
    content: Callable[[], None]


class Writer:
    """Writes, rates and prunes, in the order requested.

    A disk that is full or read-only costs the checkpoint, not the run: `report(step, reason)` is called instead.
    """

    def __init__(self, folder: Path, *, keep_last: int, keep_best: int, report: Callable[[int, str], None]) -> None:
        self.lost: set[int] = set()
        self.folder, self.keep_last, self.keep_best, self.report = folder, keep_last, keep_best, report
        # One waits while one is written: a slow disk holds the training up rather than filling the memory.
        self.jobs: queue.Queue[_Save | _Evaluated | _Write | None] = queue.Queue(maxsize=1)
        self.thread = threading.Thread(target=self._work, name="checkpoints", daemon=True)
        self.thread.start()
        atexit.register(self.close)  # what was requested before a failure is still written

    def save(self, sidecar: Sidecar, tensors: dict[str, np.ndarray]) -> None:
        """Write a checkpoint and make it the last one; the tensors must not change any more."""
        self.jobs.put(_Save(sidecar, tensors))

    def evaluated(self, sidecar: Sidecar, *, is_best: bool) -> None:
        """Add the result of an evaluation to a checkpoint that was saved before."""
        self.jobs.put(_Evaluated(sidecar, is_best))

    def write(self, sidecar: Sidecar, content: Callable[[], None]) -> None:
        """Call what writes something else that goes with a checkpoint."""
        self.jobs.put(_Write(sidecar, content))

    def close(self) -> None:
        """Wait until everything is written; has no effect the second time."""
        if self.thread.is_alive():
            self.jobs.put(None)
            self.thread.join()

    def _work(self) -> None:
        while (job := self.jobs.get()) is not None:
            checkpoint = Checkpoint(self.folder, job.sidecar.step)
            try:
                match job:
                    case _Write():
                        job.content()
                    case _Save():
                        write(checkpoint, job.tensors, job.sidecar)
                        set_tag(self.folder, "last", checkpoint)
                    case _Evaluated():
                        checkpoint.write_sidecar(job.sidecar.with_digest(checkpoint.read_sidecar().sha256))
                        if job.is_best:
                            set_tag(self.folder, "best", checkpoint)
                prune(self.folder, keep_last=self.keep_last, keep_best=self.keep_best)
            except Exception as error:  # noqa: BLE001  a thread that ended would block the training for ever
                if checkpoint.step not in self.lost:
                    self.lost.add(checkpoint.step)
                    self.report(checkpoint.step, getattr(error, "strerror", None) or str(error))
