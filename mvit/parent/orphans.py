"""Runs and sweeps of this machine whose launcher could not record their end: the next launch does."""

from __future__ import annotations

import threading
from contextlib import suppress
from pathlib import Path

from mvit import console
from mvit.files import read_mapping, write_json
from mvit.parent.tracking.dead import close_dead
from mvit.rundir import ownership
from mvit.rundir.ending import Failure, record_end, record_mirrored, recorded_in_place
from mvit.rundir.paths import RunDir
from mvit.rundir.status import read_statuses, workers_finished

MOST_TOLD = 20
"""Ends that one launch tells MLflow; a store that was down for weeks gets the rest with the next ones."""


def close(runs: Path) -> None:
    """Record the end of every orphan below `runs`; MLflow is told beside the launch, which never waits for it."""
    untold: list[RunDir] = []
    for file in sorted((*runs.glob("*/*/launcher.json"), *runs.glob("*/*/*/launcher.json")), reverse=True):
        folder = RunDir(file.parent)
        if ownership.is_orphan(folder):
            _close(folder)
            console.say(f"mvit: {folder.path.name} was left without an end; it is recorded as {_status(folder)}")
        end = read_mapping(folder.end)
        if end and end.get("mirrored") is not True and folder.tracking.exists() and not ownership.lives(folder):
            untold.append(folder)
    if untold:
        told = untold[:MOST_TOLD]
        threading.Thread(target=lambda: [_tell(folder) for folder in told], name="orphans", daemon=True).start()


def _close(folder: RunDir) -> None:
    if end := recorded_in_place(folder):
        if end["error"]:
            with suppress(OSError):
                write_json(folder.error, end["error"])
        record_end(folder, end["status"], exit_code=end["exit_code"], error=end["error"])
        return
    if workers_finished(folder):
        record_end(folder, "FINISHED", exit_code=0, error=None)
        return
    workers = [status for status in read_statuses(folder) if status["rank"] >= 0]
    stage = workers[0]["stage"] if workers else "start"
    failure = Failure("killed", None, stage, "its launcher was killed")
    with suppress(OSError):
        write_json(folder.error, failure.fields())
    record_end(folder, "KILLED", exit_code=None, error=failure.fields())


def _tell(folder: RunDir) -> None:
    if ownership.lives(folder):  # resumed in the meantime
        return
    if close_dead(folder, _status(folder)) is None:  # else the next launch tries again
        record_mirrored(folder, mirrored=True)


def _status(folder: RunDir) -> str:
    return (read_mapping(folder.end) or {}).get("status", "KILLED")
