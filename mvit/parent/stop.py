"""Stopping a run or a sweep that another process looks after."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from mvit import console
from mvit.console import mvit_command, shown
from mvit.errors import ConfigError, Problem, RunDirError
from mvit.parent.slurm.queue import ask_to_stop, cancel, states
from mvit.rundir.ending import read_ending
from mvit.rundir.frozen import read_run
from mvit.rundir.job import Job, read_job
from mvit.rundir.launcher import Launcher, read_launcher
from mvit.rundir.paths import RunDir, writable
from mvit.rundir.state import run_status, sweep_status
from mvit.rundir.stop import CURRENT_EPOCH, StopReason, write_stop
from mvit.rundir.sweep import is_sweep, trials_of

PATIENCE_S = 60.0
"""Longest wait for the end: a checkpoint is written, and MLflow is told."""


def stop(path: Path, *, after_epoch: bool = False) -> int:
    """Stop it after a checkpoint of the current step, and wait for that, or after the epoch; returns the exit code.

    Raises `RunDirError` for what does not run, or runs on another machine, `ConfigError` for what has no epochs.
    """
    folder, launcher = RunDir(path), read_launcher(RunDir(path))
    if not (folder.run.exists() or is_sweep(path)):
        raise RunDirError(f"{shown(path)} is not the folder of a run or a sweep")
    if after_epoch:
        _must_have_epochs(path)
    is_followed = launcher is not None and launcher.lives() and read_ending(folder) is None
    if not is_followed and states(jobs := _jobs(path)):
        if is_sweep(path) and launcher and not launcher.is_local:  # which is to start no other trial
            with writable(path):
                write_stop(folder, StopReason(kind="pause"), after_epoch=CURRENT_EPOCH)
        return _stop_jobs(path, jobs, after_epoch=after_epoch)
    if (status := _status(path)) != "RUNNING" or launcher is None:
        raise RunDirError(f"{shown(path)} is not running: it is {status}")
    if after_epoch:
        _stop_after_epoch(folder)
        return 0
    if not launcher.is_local and not folder.nodes.exists():
        raise RunDirError(f"{shown(path)} runs on {launcher.host}; stop it there")
    if not launcher.is_local:  # of a run on several machines, whose node 0 reads what is wanted
        with writable(path):
            write_stop(folder, StopReason(kind="signal", signal=signal.SIGINT))
    elif not launcher.lives():
        raise RunDirError(f"{shown(path)}: its launcher is gone, and its last processes are leaving")
    else:
        try:
            os.kill(launcher.pid, signal.SIGINT)
        except ProcessLookupError:
            pass  # it has just ended
        except PermissionError as error:
            raise RunDirError(f"{shown(path)} is another user's, who alone can stop it") from error
    deadline = time.monotonic() + PATIENCE_S
    while (is_there := _is_looked_after(folder, launcher)) and time.monotonic() < deadline:
        time.sleep(0.1)
    if is_there:
        console.complain([f"{shown(path)} has been asked to stop, and still runs after {PATIENCE_S:.0f} s"])
        return 1
    _tell_status(path)
    return 0


def _jobs(path: Path) -> list[Job]:
    """The jobs of a run, or of the trials of a sweep, also those that have ended."""
    return [job for folder in _runs(path) if (job := read_job(folder))]


def _runs(path: Path) -> list[RunDir]:
    return trials_of(path) if is_sweep(path) else [RunDir(path)]


def _must_have_epochs(path: Path) -> None:
    """Raise `ConfigError` for a run, or a trial of a sweep, that is no training."""
    for folder in _runs(path):
        with suppress(RunDirError):  # one that is damaged may be stopped all the same
            if (task := read_run(folder).config.task.kind) != "train":
                raise ConfigError(
                    Problem("--after", "epoch", f"is for training, and this is task={task}", "leave it out")
                )


def _stop_jobs(path: Path, jobs: Sequence[Job], *, after_epoch: bool) -> int:
    """Through Slurm, which knows where they run."""
    if after_epoch:
        cancel(jobs)
        now, starting = states(jobs), list[Job]()
        for folder in _runs(path):
            if run_status(folder) == "RUNNING":
                _stop_after_epoch(folder)
            elif read_ending(folder):
                pass  # its job, if Slurm still lists it, is leaving
            elif (job := read_job(folder)) and now.get(job) == "running":
                starting.append(job)
        console.complain([f"job {job.id} has only just started; stop it again in a moment" for job in starting])
        return int(bool(starting))
    ask_to_stop(jobs)
    deadline = time.monotonic() + PATIENCE_S
    while (left := states(jobs)) and time.monotonic() < deadline:
        time.sleep(0.5)
    if left:
        console.complain(
            [f"job {job.id} has been asked to stop, and still runs after {PATIENCE_S:.0f} s" for job in left]
        )
        return 1
    _tell_status(path)
    return 0


def _stop_after_epoch(folder: RunDir) -> None:
    with writable(folder.path):
        write_stop(folder, StopReason(kind="pause"), after_epoch=CURRENT_EPOCH)
    later = mvit_command("resume", folder.path)
    console.say(f"mvit: {shown(folder.path)} stops after the current epoch; continue later with: {later}")


def _tell_status(path: Path) -> None:
    console.say(f"mvit: {shown(path)}: {_status(path)}")
    if _status(path) != "FINISHED":
        console.say(f"mvit: continue with: {mvit_command('resume', path)}")


def _status(path: Path) -> str:
    """Of a run, or of a sweep, which runs while its parent does, also between two trials."""
    if not is_sweep(path):
        return run_status(RunDir(path))
    launcher = read_launcher(RunDir(path))
    return "RUNNING" if launcher and launcher.lives() and not RunDir(path).end.exists() else sweep_status(path)


def _is_looked_after(folder: RunDir, launcher: Launcher) -> bool:
    """Whether the process that was asked is still at it; on another machine, its recorded end alone tells."""
    if not launcher.is_local:
        return read_ending(folder) is None
    now = read_launcher(folder)
    return now is not None and now.pid == launcher.pid and now.lives()
