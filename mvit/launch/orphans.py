"""Runs and sweeps of this machine whose launcher could not record their end: the next launch does."""

from __future__ import annotations

import threading
from contextlib import suppress
from pathlib import Path

from mvit import console
from mvit.launch import owner
from mvit.launch.failure import Failure
from mvit.launch.supervise import has_finished, statuses
from mvit.launch.tracking import close_dead
from mvit.rundir import RunDir, known, write_json

MOST_TOLD = 20
"""Ends that one launch tells MLflow; a store that was down for weeks gets the rest with the next ones."""


def close(runs: Path) -> None:
    """Record the end of every orphan below `runs`; MLflow is told beside the launch, which never waits for it."""
    untold: list[RunDir] = []
    for file in sorted((*runs.glob("*/*/launcher.json"), *runs.glob("*/*/*/launcher.json")), reverse=True):
        folder = RunDir(file.parent)
        if owner.is_orphan(folder):
            _close(folder)
            console.say(f"mvit: {folder.path.name} was left without an end; it is recorded as {_status(folder)}")
        end = known(folder.end)
        if end and end.get("mirrored") is not True and folder.tracking.exists() and not owner.lives(folder):
            untold.append(folder)
    if untold:
        told = untold[:MOST_TOLD]
        threading.Thread(target=lambda: [_tell(folder) for folder in told], name="orphans", daemon=True).start()


def _close(folder: RunDir) -> None:
    if end := owner.recorded_in_place(folder):
        if end["error"]:
            with suppress(OSError):
                write_json(folder.error, end["error"])
        owner.record_end(folder, end["status"], exit_code=end["exit_code"], error=end["error"])
        return
    if has_finished(folder):
        owner.record_end(folder, "FINISHED", exit_code=0, error=None)
        return
    workers = [status for status in statuses(folder) if status["rank"] >= 0]
    stage = workers[0]["stage"] if workers else "start"
    failure = Failure("killed", None, stage, "its launcher was killed")
    with suppress(OSError):
        write_json(folder.error, failure.fields())
    owner.record_end(folder, "KILLED", exit_code=None, error=failure.fields())


def _tell(folder: RunDir) -> None:
    if owner.lives(folder):  # resumed in the meantime
        return
    if close_dead(folder, _status(folder)) is None:  # else the next launch tries again
        owner.record_mirrored(folder, mirrored=True)


def _status(folder: RunDir) -> str:
    return (known(folder.end) or {}).get("status", "KILLED")
