"""job.json: the job of a scheduler that executes a run, which was submitted and left."""

from __future__ import annotations

from contextlib import suppress

from mvit.config import Frozen
from mvit.files import read_json_bytes, write_json
from mvit.rundir.paths import RunDir


class Job(Frozen):
    """job.json."""

    id: str
    """As the scheduler names it: 12, or 12_3 of an array."""
    cluster: str | None
    """Where Slurm has several."""


def write_job(folder: RunDir, job: Job) -> None:
    write_json(folder.job, job.model_dump(mode="json"))


def read_job(folder: RunDir) -> Job | None:
    """The job; None for a run that was not submitted."""
    with suppress(OSError, ValueError):
        return Job.model_validate_json(read_json_bytes(folder.job))
    return None
