"""What a scheduler adds to what the folders of runs say: which of them wait, and whose job has ended without an end."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import cast

from mvit import console
from mvit.errors import RunDirError
from mvit.parent.report.record import Record
from mvit.parent.slurm.queue import State, states
from mvit.rundir.job import Job, read_job
from mvit.rundir.launcher import read_launcher
from mvit.rundir.state import Status, status_of_trials


def with_jobs(records: Sequence[Record]) -> list[Record]:
    """The records, with the status of those that were submitted, and of their sweeps.

    One that ended otherwise than FINISHED may be queued again. Where Slurm does not answer, a line says so, and the
    folders alone tell.
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
    now = [_as_job(record, jobs.get(record.folder.path), known) for record in records]
    changed = {one.sweep for one, before in zip(now, records, strict=True) if one.status != before.status}
    changed |= {one.sweep for one in now if jobs.get(one.folder.path) in known}
    sweeps = {
        sweep: replace(sweep, status=_status_of(one.status for one in now if one.sweep == sweep))
        for sweep in changed
        if sweep
    }
    return [replace(one, sweep=sweeps.get(one.sweep, one.sweep)) if one.sweep else one for one in now]


def _as_job(record: Record, job: Job | None, known: Mapping[Job, State]) -> Record:
    if job is None:
        return record
    match known.get(job):
        case "waiting":
            return replace(record, status="QUEUED")
        case "running" if record.status != "FAILED":  # whose job is about to end
            return replace(record, status="RUNNING")
        case _:
            launcher = read_launcher(record.folder)
            is_lost = record.status == "RUNNING" and launcher and launcher.job == job.id and not launcher.lives()
            return replace(record, status="KILLED") if is_lost else record


def _status_of(trials: Iterable[str]) -> str:
    """The status of a sweep of which something waits, runs, or is lost."""
    unique = set(trials)
    if "QUEUED" in unique and "RUNNING" not in unique:
        return "QUEUED"
    return status_of_trials(cast(set[Status], unique - {"QUEUED"}))
