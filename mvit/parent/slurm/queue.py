"""Slurm: submit a run, ask for its job, stop it."""

from __future__ import annotations

import os
import re
import subprocess
from typing import Literal

from mvit.config import SlurmLaunch
from mvit.errors import ConfigError, Problem, RunDirError
from mvit.files import write_bytes
from mvit.parent.host import Host
from mvit.parent.slurm.script import job_script
from mvit.rundir.frozen import Run
from mvit.rundir.job import Job, read_job, write_job
from mvit.rundir.paths import RunDir, writable

ANSWER_TIMEOUT_S = 60.0
_STATE = re.compile(r"\bJobState=(\S+)")
_WAITING = ("PENDING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT", "RESV_DEL_HOLD")
_RUNNING = ("RUNNING", "CONFIGURING", "COMPLETING", "SUSPENDED", "STOPPED", "SIGNALING", "STAGE_OUT", "RESIZING")


def submit(run: Run, launch: SlurmLaunch, *, host: Host) -> Job:
    """Write the script and hand it to sbatch; raises `ConfigError` without Slurm, `RunDirError` where it refuses."""
    with writable(run.folder.path):
        write_bytes(run.folder.job_script, job_script(run, launch, host=host).encode())
    said = _slurm("sbatch", "--parsable", str(run.folder.job_script))
    number, _, cluster = said.strip().partition(";")
    job = Job(id=number, cluster=cluster or None)
    with writable(run.folder.path):
        write_job(run.folder, job)
    return job


def state_of(job: Job) -> Literal["waiting", "running"] | None:
    """Whether the job waits or runs; None once it has ended, or Slurm does not know it any more."""
    try:
        said = _slurm("scontrol", "show", "job", "--oneliner", *_on(job), job.id)
    except RunDirError as error:
        if "Invalid job id" in str(error):
            return None
        raise
    found = _STATE.search(said)
    state = found[1] if found else ""
    return "waiting" if state in _WAITING else "running" if state in _RUNNING else None


def must_not_be_queued(folder: RunDir) -> None:
    """Raises `RunDirError` while a job of the run waits or runs, unless this process is of that job."""
    job = read_job(folder)
    if job is None or os.environ.get("SLURM_JOB_ID") == job.id:
        return
    if state := state_of(job):
        raise RunDirError(f"{folder.path} is {state} as job {job.id} of Slurm; cancel it first: scancel {job.id}")


def ask_to_stop(job: Job) -> None:
    """Have the job's run stop, with a checkpoint; one that waits is cancelled."""
    if state_of(job) == "running":
        _slurm("scancel", "--batch", "--signal=USR2", *_on(job), job.id)
    else:
        _slurm("scancel", *_on(job), job.id)


def _on(job: Job) -> tuple[str, ...]:
    return (f"--clusters={job.cluster}",) if job.cluster else ()


def _slurm(*command: str) -> str:
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=ANSWER_TIMEOUT_S, check=False
        )
    except FileNotFoundError:
        rule = f"needs Slurm's {command[0]}, which is not on PATH"
        raise ConfigError(Problem("launch", "slurm", rule, "launch on a login node, or use launch=local")) from None
    except subprocess.TimeoutExpired:
        raise RunDirError(f"Slurm's {command[0]} did not answer within {ANSWER_TIMEOUT_S:.0f} s") from None
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"{command[0]} ended with exit code {done.returncode}"])[-1]
        raise RunDirError(f"Slurm: {last.removeprefix(f'{command[0]}: ')}")
    return done.stdout
