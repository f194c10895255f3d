"""Checkpoints written beside the training: a step waits for the snapshot, not for the disk."""

import atexit
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mvit.rundir.checkpoints import Checkpoint, prune, set_tag
from mvit.worker.checkpoint import write


@dataclass(frozen=True)
class _Save:
    tensors: dict[str, np.ndarray]
    sidecar: dict[str, Any]


@dataclass(frozen=True)
class _Judge:
    """What an evaluation adds to the checkpoint of its step."""

    step: int
    fields: dict[str, Any]
    is_best: bool


class Writer:
    """A thread that writes, judges and prunes, in the order asked.

    A disk that is full or read-only costs the checkpoint, not the run: `report(step, reason)` is called instead.
    """

    def __init__(self, folder: Path, *, keep_last: int, keep_best: int, report: Callable[[int, str], None]) -> None:
        self.lost: set[int] = set()
        self.folder, self.keep_last, self.keep_best, self.report = folder, keep_last, keep_best, report
        # One waits while one is written: a slow disk holds the training up rather than filling the memory.
        self.jobs: queue.Queue[_Save | _Judge | None] = queue.Queue(maxsize=1)
        self.thread = threading.Thread(target=self._work, name="checkpoints", daemon=True)
        self.thread.start()
        atexit.register(self.close)  # what was asked for before a failure is written all the same

    def save(self, tensors: dict[str, np.ndarray], sidecar: dict[str, Any]) -> None:
        """Write the checkpoint of sidecar["step"] and make it the last one; the tensors are not to change any more."""
        self.jobs.put(_Save(tensors, sidecar))

    def judge(self, step: int, fields: dict[str, Any], *, is_best: bool) -> None:
        """Add the result of an evaluation, `score` among the fields, to the checkpoint of its step."""
        self.jobs.put(_Judge(step, fields, is_best))

    def close(self) -> None:
        """Wait until everything is written; a second time there is nothing to wait for."""
        if self.thread.is_alive():
            self.jobs.put(None)
            self.thread.join()

    def _work(self) -> None:
        while (job := self.jobs.get()) is not None:
            try:
                match job:
                    case _Save():
                        saved = Checkpoint(self.folder, job.sidecar["step"])
                        write(saved, job.tensors, job.sidecar)
                        set_tag(self.folder, "last", saved)
                    case _Judge():
                        judged = Checkpoint(self.folder, job.step)
                        judged.write_sidecar({**judged.read_sidecar(), **job.fields})
                        if job.is_best:
                            set_tag(self.folder, "best", judged)
                prune(self.folder, keep_last=self.keep_last, keep_best=self.keep_best)
            except Exception as error:  # noqa: BLE001  a thread that ended would hold the training for ever
                step = job.sidecar["step"] if isinstance(job, _Save) else job.step
                if step not in self.lost:
                    self.lost.add(step)
                    self.report(step, getattr(error, "strerror", None) or str(error))
