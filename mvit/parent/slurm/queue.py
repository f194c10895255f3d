"""Slurm's queue: submit a script, ask what waits or runs, stop it."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable, Sequence
from typing import Literal

from mvit.errors import ConfigError, Problem, RunDirError
from mvit.files import write_bytes
from mvit.rundir.job import Job, read_job, this_job, write_job
from mvit.rundir.paths import RunDir, writable

ANSWER_TIMEOUT_S = 60.0
State = Literal["waiting", "running"]
_WAITING = ("PENDING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT", "RESV_DEL_HOLD")


def submit(folder: RunDir, script: str) -> Job:
    """Keep the script in the folder and hand it to sbatch.

    Raises `ConfigError` without Slurm, `RunDirError` where it refuses.
    """
    with writable(folder.path):
        write_bytes(folder.job_script, script.encode())
    number, _, cluster = _slurm("sbatch", "--parsable", str(folder.job_script)).strip().partition(";")
    job = Job(id=number, cluster=cluster or None)
    with writable(folder.path):
        write_job(folder, job)
    return job


def states(jobs: Iterable[Job]) -> dict[Job, State]:
    """Which of these jobs wait or run; those that have ended are left out.

    Raises `ConfigError` without Slurm, `RunDirError` where it does not answer.
    """
    wanted = set(jobs)
    answer: dict[Job, State] = {}
    for cluster in {job.cluster for job in wanted}:
        numbers = sorted({job.id.partition("_")[0] for job in wanted if job.cluster == cluster})
        command = ("squeue", "--noheader", "--array", "--format=%i %T", f"--jobs={','.join(numbers)}")
        try:
            lines = _slurm(*command, *_on(cluster)).splitlines()
        except RunDirError as error:
            if "Invalid job id" in str(error):  # long gone
                continue
            raise
        for number, _, word in (line.strip().partition(" ") for line in lines):
            if (job := Job(id=number, cluster=cluster)) in wanted:
                answer[job] = "waiting" if word in _WAITING else "running"
    return answer


def state_of(job: Job) -> State | None:
    """Whether the job waits or runs; None once it has ended. Raises as `states` does."""
    return states([job]).get(job)


def must_not_be_queued(folder: RunDir) -> None:
    """Raises `RunDirError` while a job of the run waits or runs, unless this process is of that job."""
    job = read_job(folder)
    if job is None or job.id == this_job():
        return
    if state := state_of(job):
        raise RunDirError(f"{folder.path} is {state} as job {job.id} of Slurm; cancel it first: scancel {job.id}")


def keep_job(folder: RunDir) -> None:
    """Note which job this process is part of, also where a person has submitted the script again."""
    number, job = this_job(), read_job(folder)
    if number and (job is None or job.id != number):
        with writable(folder.path):
            write_job(folder, Job(id=number, cluster=None))


def ask_to_stop(jobs: Sequence[Job]) -> None:
    """Have those that run stop, with a checkpoint; those that wait are cancelled. Raises as `states` does."""
    cancel(jobs)
    _scancel(jobs, "running", "--batch", "--signal=USR2")


def cancel(jobs: Sequence[Job]) -> None:
    """Take those that wait from the queue. Raises as `states` does."""
    _scancel(jobs, "waiting")


def _scancel(jobs: Sequence[Job], state: State, *options: str) -> None:
    clusters: dict[str | None, list[str]] = {}
    for job, its in states(jobs).items():
        if its == state:
            clusters.setdefault(job.cluster, []).append(job.id)
    for cluster, ids in clusters.items():
        _slurm("scancel", *options, *_on(cluster), *ids)


def _on(cluster: str | None) -> tuple[str, ...]:
    return (f"--clusters={cluster}",) if cluster else ()


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
