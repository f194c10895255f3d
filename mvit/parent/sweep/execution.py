"""The execution of one turn of a trial: by a process of this machine, or as a job of Slurm."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, Protocol

from mvit import console
from mvit.config import SlurmLaunch
from mvit.errors import RunDirError
from mvit.parent.host import this_host
from mvit.parent.slurm.exclusion import excluded
from mvit.parent.slurm.queue import State, ask_to_stop, states, submit
from mvit.parent.slurm.script import job_script
from mvit.places import PROJECT
from mvit.process import is_stopped, stop_with_parent
from mvit.rundir.frozen import Run
from mvit.rundir.job import Job
from mvit.rundir.sweep import trials_of

STOPPED_S = 20.0
"""How long a trial's process may stand still, as after SIGSTOP, before it is killed: others wait for its slot."""
ASK_SLURM_EVERY_S = 2.0


class Execution(Protocol):
    """A turn of a trial that goes on somewhere."""

    @property
    def log(self) -> Path:
        """What it says."""
        ...

    def poll(self) -> int | None:
        """Its exit code once it has ended, that of a signal negative; None before."""
        ...

    def ask_to_stop(self) -> bool:
        """Have it stop after a checkpoint; asked for a second time, at once. Returns whether it could be asked."""
        ...


class Process:
    """`python -m mvit run` in a slot of this machine."""

    def __init__(self, run: Run, *, slot: str, until_epoch: int | None, overrides: Sequence[str]) -> None:
        self.log = run.folder.launcher_log
        self._stood_since: float | None = None
        with _opened(self.log) as log:
            self._process = subprocess.Popen(
                command_of(run, slot=slot, until_epoch=until_epoch, overrides=overrides),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=PROJECT,
                start_new_session=True,  # a Ctrl-C is for the sweep, which asks each of its trials to stop
                preexec_fn=stop_with_parent,
            )

    def poll(self) -> int | None:
        """Its exit code; one that stands still for long is killed."""
        if (code := self._process.poll()) is not None:
            return code
        if not is_stopped(self._process.pid):
            self._stood_since = None
        elif self._stood_since is None:
            self._stood_since = time.monotonic()
        elif time.monotonic() - self._stood_since > STOPPED_S:
            self._process.kill()
        return None

    def ask_to_stop(self) -> bool:
        self._process.send_signal(signal.SIGTERM)
        return True


class Watch:
    """What Slurm says of the jobs of a sweep, asked for all of them at once. An outage leaves them as they were."""

    def __init__(self) -> None:
        self._active: dict[Job, State] = {}
        self._asked = 0.0
        self.is_away = False
        """Whether Slurm did not answer the last time."""

    def add(self, job: Job) -> None:
        """Watch this one as well."""
        self._active[job] = "waiting"

    def has(self, job: Job) -> bool:
        """Whether the job waits or runs."""
        if time.monotonic() - self._asked > ASK_SLURM_EVERY_S:
            self._ask()
        return job in self._active

    def _ask(self) -> None:
        try:
            self._active, self.is_away = states(self._active), False
        except RunDirError as error:
            if not self.is_away:
                console.complain([f"{error}; the sweep waits for it"])
            self.is_away = True
        self._asked = time.monotonic()


class Submitted:
    """A job of Slurm."""

    def __init__(self, run: Run, job: Job, *, watch: Watch) -> None:
        self._folder, self._job, self._watch = run.folder, job, watch
        self._is_stopped = False
        watch.add(job)

    @property
    def log(self) -> Path:
        return self._folder.logs / f"job-{self._job.id}.log"

    def poll(self) -> int | None:
        """0 once Slurm has no such job any more: how it went, its folder says. One that never began was cancelled."""
        if self._watch.has(self._job):
            return None
        return 0 if self.log.exists() and not self._is_stopped else -signal.SIGTERM

    def ask_to_stop(self) -> bool:
        """Through Slurm, unless that is away, which the watch has told."""
        if self._watch.is_away:
            return False
        try:
            ask_to_stop([self._job])
        except RunDirError:
            return False
        self._is_stopped = True
        return True


def submit_turn(run: Run, launch: SlurmLaunch, *, until_epoch: int | None, overrides: Sequence[str]) -> Job:
    """A job that executes a trial, to its end or to an epoch.

    Raises `ConfigError` without Slurm, `RunDirError` where it refuses or does not answer.
    """
    arguments = _arguments(until_epoch, overrides)
    without = excluded(trials_of(run.folder.path.parent), launch)
    return submit(run.folder, job_script(run, launch, host=this_host(), arguments=arguments, without=without))


def command_of(run: Run, *, slot: str, until_epoch: int | None, overrides: Sequence[str]) -> list[str]:
    """What executes a trial here, to its end or to an epoch."""
    command = [sys.executable, "-m", "mvit", "run", str(run.folder.path)]
    command += ["--slot", slot] if slot else []
    return [*command, *_arguments(until_epoch, overrides)]


def _arguments(until_epoch: int | None, overrides: Sequence[str]) -> list[str]:
    return ["--of-sweep", *(["--until-epoch", str(until_epoch)] if until_epoch else []), *overrides]


def _opened(log: Path) -> BinaryIO:
    """The log, to append to; nowhere on a disk that is full."""
    try:
        return log.open("ab")
    except OSError:
        return Path(os.devnull).open("ab")
