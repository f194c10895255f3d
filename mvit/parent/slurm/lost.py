"""Runs and sweeps whose job has ended without recording their end, as when its machine fails: Slurm knows that."""

from __future__ import annotations

import time

from mvit.parent import orphans
from mvit.parent.slurm.queue import state_of
from mvit.rundir.ending import read_ending
from mvit.rundir.faults import Fault, record_fault
from mvit.rundir.job import Job, read_job, this_job
from mvit.rundir.launcher import read_launcher
from mvit.rundir.paths import RunDir


def record_lost(folder: RunDir) -> None:
    """Record the end of a run or a sweep that was lost with its job.

    The processes of another machine are never judged. A job that is there again, as this process, has lost what it was
    before. Raises `ConfigError` without Slurm, `RunDirError` where it does not answer.
    """
    launcher = read_launcher(folder)
    if launcher is None or launcher.job is None or launcher.lives() or read_ending(folder):
        return
    if launcher.job != this_job():
        job = read_job(folder)
        cluster = job.cluster if job and job.id == launcher.job else None
        if state_of(Job(id=launcher.job, cluster=cluster)):
            return
    status = orphans.close_lost(folder, f"job {launcher.job} of Slurm has ended on {launcher.host}")
    if status == "KILLED" and folder.run.exists():
        record_fault(folder, Fault(time=time.time(), attempt=0, kind="killed", machine=launcher.machine))
