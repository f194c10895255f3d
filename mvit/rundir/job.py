"""job.json: the job of a scheduler that executes a run or a sweep, which was submitted and left."""

from __future__ import annotations

import os
import socket
from contextlib import suppress

from mvit.config import Frozen
from mvit.files import read_json_bytes, write_json
from mvit.rundir.paths import RunDir


class Job(Frozen):
    """job.json."""

    id: str
    """As the scheduler names it: 12, or 12_3 for a task of an array."""
    cluster: str | None
    """Where Slurm has several."""


def this_job() -> str | None:
    """The id of the job that this process is part of.

    The last task of an array has the array's own number as SLURM_JOB_ID, which names all of them.
    """
    if array := os.environ.get("SLURM_ARRAY_JOB_ID"):
        return f"{array}_{os.environ.get('SLURM_ARRAY_TASK_ID')}"
    return os.environ.get("SLURM_JOB_ID")


def machine_name() -> str:
    """This machine as its scheduler calls it, else its host name."""
    return os.environ.get("SLURMD_NODENAME") or socket.gethostname()


def write_job(folder: RunDir, job: Job) -> None:
    write_json(folder.job, job.model_dump(mode="json"))


def read_job(folder: RunDir) -> Job | None:
    """The job; None for what was not submitted."""
    with suppress(OSError, ValueError):
        return Job.model_validate_json(read_json_bytes(folder.job))
    return None
