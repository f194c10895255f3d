"""status/<rank>.json: what each process of a run says of itself; written by the workers, read by the parent."""

from __future__ import annotations

import socket
from contextlib import suppress
from enum import Enum
from pathlib import Path
from typing import Literal

from mvit.config import Frozen
from mvit.files import read_json_bytes, write_json
from mvit.process import process_start
from mvit.rundir.paths import RunDir

SCHEDULER = -1
"""The rank of msrun's scheduler process, which runs the worker's module and never ends by itself."""
Limit = Literal["join_s", "data_s", "compile_s", "step_s", "evaluate_s"]
"""A field of `TrainLimitsConfig`; the stages of an evaluation have one of `LimitsConfig`."""


class Stage(str, Enum):
    """Where a worker is. Each stage of work has the limit it is held to; the last three are ends."""

    limit: Limit | None

    START = ("start", "join_s")
    JOIN = ("join", "join_s")
    DATA = ("data", "data_s")
    BUILD = ("build", "data_s")
    COMPILE = ("compile", "compile_s")
    STEP = ("step", "step_s")
    EVALUATE = ("evaluate", "evaluate_s")
    DONE = ("done", None)
    STOPPED = ("stopped", None)
    FAILED = ("failed", None)

    def __new__(cls, value: str, limit: Limit | None) -> Stage:
        stage = str.__new__(cls, value)
        stage._value_ = value
        stage.limit = limit
        return stage

    def __str__(self) -> str:
        return self.value

    @property
    def saves_on_stop(self) -> bool:
        """Whether a request to stop is worth waiting for: before the first step there is nothing to save."""
        return self in (Stage.STEP, Stage.EVALUATE)


class WorkerError(Frozen):
    """The exception that ended a worker."""

    type: str
    message: str
    where: str | None
    """The last place in mvit's own code, `file:line`."""
    stage: Stage
    time: float


class WorkerStatus(Frozen):
    """One process, at one moment. A pid means something on its own host alone."""

    rank: int
    host: str
    pid: int
    started: int
    """Start of the process, in clock ticks since boot: a pid is reused, a pid with its start is not."""
    stage: Stage
    step: int
    marks: int
    """Points passed that every worker passes: the one with fewer is waited for."""
    error: WorkerError | None
    time: float

    @property
    def is_worker(self) -> bool:
        return self.rank != SCHEDULER

    @property
    def is_local(self) -> bool:
        return self.host == socket.gethostname()

    def lives(self) -> bool:
        """Whether it is a live process of this host."""
        return self.is_local and process_start(self.pid) == self.started

    def has_disappeared(self) -> bool:
        """Whether it was a process of this host and is gone; of another host's nobody here can tell."""
        return self.is_local and process_start(self.pid) != self.started


def write_status(path: Path, status: WorkerStatus) -> None:
    write_json(path, status.model_dump(mode="json"))


def read_statuses(folder: RunDir) -> list[WorkerStatus]:
    """Every status that can be read, by rank; the scheduler's comes first."""
    statuses: list[WorkerStatus] = []
    for path in folder.status.glob("[!.]*.json"):
        with suppress(OSError, ValueError):
            statuses.append(WorkerStatus.model_validate_json(read_json_bytes(path)))
    return sorted(statuses, key=lambda status: status.rank)


def read_workers(folder: RunDir) -> list[WorkerStatus]:
    """`read_statuses` without the scheduler's."""
    return [status for status in read_statuses(folder) if status.is_worker]


def workers_stopped(folder: RunDir) -> bool:
    """Whether every worker stopped as it was asked to, by its own account."""
    workers = read_workers(folder)
    return bool(workers) and all(status.stage is Stage.STOPPED for status in workers)


def workers_finished(folder: RunDir) -> bool:
    """Whether every worker reached its end, by its own account, and the result was written."""
    workers = read_workers(folder)
    return folder.result.exists() and bool(workers) and all(status.stage is Stage.DONE for status in workers)
