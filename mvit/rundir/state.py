"""The status of a run, and of a sweep, from its folder; there is no other rule."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from mvit.rundir.ending import read_ending
from mvit.rundir.launcher import read_launcher
from mvit.rundir.ledger import TrialFrozen
from mvit.rundir.ownership import alive
from mvit.rundir.paths import RunDir
from mvit.rundir.status import read_workers, workers_finished
from mvit.rundir.sweep import not_drawn, pruned_trials, read_trials

Status = Literal["FROZEN", "RUNNING", "PAUSED", "FINISHED", "FAILED", "KILLED"]


def run_status(folder: RunDir) -> Status:
    """The status of a run.

    An end that was recorded says it. Without one: FROZEN before its first launcher; RUNNING while a process of it
    lives, or may live on another host; then what its workers reported, else KILLED with its launcher.
    """
    if ending := read_ending(folder):
        return ending.status
    if alive(folder):
        return "RUNNING"
    launcher = read_launcher(folder)
    if launcher and launcher.lives():
        return "RUNNING"
    if workers_finished(folder):
        return "FINISHED"
    workers = read_workers(folder)
    if any(worker.error for worker in workers):
        return "FAILED"
    if launcher is None:
        return "KILLED" if workers or folder.journal.exists() else "FROZEN"
    return "KILLED" if launcher.is_local else "RUNNING"


def sweep_status(folder: Path) -> Status:
    """The status of a sweep, from those of its trials; one that is pruned has had its end."""
    pruned = pruned_trials(folder)

    def status_of(trial: TrialFrozen) -> Status:
        status = run_status(RunDir(folder / trial.folder))
        return "FINISHED" if status == "PAUSED" and trial.trial in pruned else status

    drawn: list[Status] = [status_of(trial) for trial in read_trials(folder)]
    if not_drawn(folder):
        drawn.append("FROZEN")
    return status_of_trials(drawn)


def status_of_trials(statuses: Iterable[Status]) -> Status:
    """RUNNING while one runs; FINISHED if all are; else what kept it from that: a stop, then a failure, then a pause.

    Trials that never started, beside others that ended, were stopped before their turn.
    """
    unique = set(statuses)
    if not unique or unique == {"FROZEN"}:
        return "FROZEN"
    if "FROZEN" in unique:
        unique.add("KILLED")
    return next(status for status in ("RUNNING", "KILLED", "FAILED", "PAUSED", "FINISHED") if status in unique)
