"""What a scheduler adds to what the folders of runs say: which of them wait, and whose job has ended without an end."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace

from mvit import console
from mvit.errors import RunDirError
from mvit.parent.report.record import Record, SweepRecord
from mvit.parent.slurm.queue import State, states
from mvit.rundir.job import Job, read_job
from mvit.rundir.launcher import read_launcher


def with_jobs(records: Sequence[Record]) -> list[Record]:
    """The records, with the status of those that were submitted, and of their sweeps; a folder's own end comes first.

    Where Slurm does not answer, a line says so, and they have the status that their folders tell.
    """
    jobs = {
        record.folder.path: job
        for record in records
        if record.status != "FINISHED" and (job := read_job(record.folder))
    }
    if not jobs or shutil.which("squeue") is None:
        return list(records)
    try:
        known = states(jobs.values())
    except RunDirError as error:
        console.complain([str(error)])
        return list(records)
    found = [_as_job(one, jobs.get(one.folder.path), known) for one in records]
    active = {one.sweep for one in found if one.sweep and one.folder.path in jobs and jobs[one.folder.path].id in known}
    return [replace(one, sweep=_active(one.sweep, found)) if one.sweep in active else one for one in found]


def _as_job(record: Record, job: Job | None, known: dict[str, State]) -> Record:
    if job is None:
        return record
    match known.get(job.id):
        case "waiting":
            return replace(record, status="QUEUED")
        case "running":
            return replace(record, status="RUNNING")
        case _:
            launcher = read_launcher(record.folder)
            is_lost = record.status == "RUNNING" and launcher and launcher.job == job.id and not launcher.lives()
            return replace(record, status="KILLED") if is_lost else record


def _active(sweep: SweepRecord | None, records: Sequence[Record]) -> SweepRecord | None:
    """The record of a sweep of which something waits or runs."""
    if sweep is None:
        return None
    runs = any(record.sweep == sweep and record.status == "RUNNING" for record in records)
    return replace(sweep, status="RUNNING" if runs else "QUEUED")
