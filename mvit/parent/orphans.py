"""Orphans: runs and sweeps of this host whose launcher could not record their end; the next launch does."""

from __future__ import annotations

import threading
from contextlib import suppress
from pathlib import Path

from mvit import console
from mvit.files import lock
from mvit.parent.tracking.dead import close_dead
from mvit.parent.verdict import first_report
from mvit.rundir.ending import EndStatus, Failure, read_ending, record_end, record_mirrored, write_failure
from mvit.rundir.launcher import launcher_lives
from mvit.rundir.ownership import is_orphan
from mvit.rundir.paths import RunDir
from mvit.rundir.state import sweep_status
from mvit.rundir.status import read_workers, workers_finished
from mvit.rundir.sweep import is_sweep

MOST_MIRRORED = 20
"""Ends that one launch sends to MLflow; a store that was down for weeks gets the rest with the next ones."""


def close(runs: Path) -> None:
    """Record the end of every orphan below `runs`; MLflow gets it beside the launch, which never waits for that."""
    unmirrored: list[RunDir] = []
    for file in sorted((*runs.glob("*/*/launcher.json"), *runs.glob("*/*/*/launcher.json")), reverse=True):
        folder = RunDir(file.parent)
        if status := close_one(folder):
            console.say(f"mvit: the launcher of {console.shown(folder.path)} died; marked {status}")
        ending = read_ending(folder)
        if ending and ending.mirrored is not True and folder.tracking.exists() and not launcher_lives(folder):
            unmirrored.append(folder)
    if unmirrored:
        batch = unmirrored[:MOST_MIRRORED]
        threading.Thread(target=lambda: [_mirror(folder) for folder in batch], name="orphans", daemon=True).start()


def close_one(folder: RunDir) -> EndStatus | None:
    """Under the lock of who claims a run: nobody resumes it meanwhile."""
    with suppress(OSError), lock(folder.path, wait=False) as is_ours:
        if is_ours and is_orphan(folder):
            return _close(folder)
    return None


def close_lost(folder: RunDir, reason: str) -> EndStatus | None:
    """Record the end of what another machine has lost, for that reason; None where somebody is at it again."""
    with suppress(OSError), lock(folder.path, wait=False) as is_ours:
        if is_ours and read_ending(folder) is None:
            return _close(folder, reason=reason)
    return None


def _close(folder: RunDir, *, reason: str = "its launcher was killed") -> EndStatus:
    """Record the end that the folder tells; of a run that tells none, that it was killed, for that reason."""
    if is_sweep(folder.path):
        status = sweep_status(folder.path)
        end: EndStatus = "KILLED" if status in ("RUNNING", "FROZEN") else status
        record_end(folder, end, exit_code=None)
        return end
    if ending := read_ending(folder):  # recorded on a full disk, in launcher.json
        if ending.error:
            with suppress(OSError):
                write_failure(folder, ending.error)
        record_end(folder, ending.status, exit_code=ending.exit_code, failure=ending.error)
        return ending.status
    workers = read_workers(folder)
    if workers_finished(folder):
        record_end(folder, "FINISHED", exit_code=0)
        return "FINISHED"
    end: EndStatus = "FAILED" if any(worker.error for worker in workers) else "KILLED"
    failure = first_report(workers)
    if failure is None:
        stage = workers[0].stage.value if workers else "start"
        failure = Failure("killed", None, stage, reason)
    with suppress(OSError):
        write_failure(folder, failure)
    record_end(folder, end, exit_code=None, failure=failure)
    return end


def _mirror(folder: RunDir) -> None:
    ending = read_ending(folder)
    if ending is None or launcher_lives(folder):  # resumed in the meantime
        return
    if close_dead(folder, ending.status) is None:  # else the next launch tries again
        record_mirrored(folder, mirrored=True)
