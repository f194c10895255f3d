"""Stopping a run or a sweep that another process looks after."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from pathlib import Path

from mvit import console
from mvit.console import mvit_command, shown
from mvit.errors import RunDirError
from mvit.parent.slurm.queue import ask_to_stop, state_of
from mvit.rundir.job import Job, read_job
from mvit.rundir.launcher import read_launcher
from mvit.rundir.paths import RunDir, writable
from mvit.rundir.state import run_status, sweep_status
from mvit.rundir.stop import CURRENT_EPOCH, StopReason, write_stop
from mvit.rundir.sweep import is_sweep

PATIENCE_S = 60.0
"""Longest wait for the end: a checkpoint is written, and MLflow is told."""


def stop(path: Path, *, after_epoch: bool = False) -> int:
    """Stop it after a checkpoint of the current step, and wait for that, or after the epoch; returns the exit code.

    Raises `RunDirError` for what does not run, or runs on another machine.
    """
    folder, launcher = RunDir(path), read_launcher(RunDir(path))
    if not (folder.run.exists() or is_sweep(path)):
        raise RunDirError(f"{shown(path)} is not the folder of a run or a sweep")
    if not is_sweep(path) and (job := read_job(folder)) and state_of(job):
        return _stop_job(path, job)
    if (status := _status(path)) != "RUNNING" or launcher is None:
        raise RunDirError(f"{shown(path)} is not running: it is {status}")
    if after_epoch:
        with writable(path):
            write_stop(folder, StopReason(kind="pause"), after_epoch=CURRENT_EPOCH)
        later = mvit_command("resume", path)
        console.say(f"mvit: {shown(path)} stops after the current epoch; continue later with: {later}")
        return 0
    if not launcher.is_local:
        raise RunDirError(f"{shown(path)} runs on {launcher.host}; stop it there")
    if not launcher.lives():
        raise RunDirError(f"{shown(path)}: its launcher is gone, and its last processes are leaving")
    with suppress(ProcessLookupError):
        os.kill(launcher.pid, signal.SIGINT)
    deadline = time.monotonic() + PATIENCE_S
    while (is_there := _is_looked_after(folder, launcher.pid)) and time.monotonic() < deadline:
        time.sleep(0.1)
    if is_there:
        console.complain([f"{shown(path)} has been asked to stop, and still runs after {PATIENCE_S:.0f} s"])
        return 1
    _tell_status(path)
    return 0


def _stop_job(path: Path, job: Job) -> int:
    """Through Slurm, which knows where it runs."""
    ask_to_stop(job)
    deadline = time.monotonic() + PATIENCE_S
    while (state := state_of(job)) and time.monotonic() < deadline:
        time.sleep(0.5)
    if state:
        console.complain([f"job {job.id} has been asked to stop, and still runs after {PATIENCE_S:.0f} s"])
        return 1
    _tell_status(path)
    return 0


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


def _is_looked_after(folder: RunDir, pid: int) -> bool:
    """Whether the process that was asked is still at it."""
    launcher = read_launcher(folder)
    return launcher is not None and launcher.pid == pid and launcher.lives()
