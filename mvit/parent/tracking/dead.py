"""The MLflow runs of launchers that are gone."""

from __future__ import annotations

import socket

from mvit.parent.tracking.content import mlflow_status, sync_command
from mvit.parent.tracking.mirror import last_sign
from mvit.parent.tracking.store import (
    TrackingError,
    complaint_of,
    connect,
    database_of,
    load,
    reason,
    uri_of,
    within,
)
from mvit.rundir.ending import EndStatus
from mvit.rundir.launcher import read_launcher
from mvit.rundir.paths import RunDir
from mvit.rundir.tracking import read_record

CLOSE_TIMEOUT_S = 5.0
"""Longest wait for the store of a run that is dead."""


def close_dead(folder: RunDir, status: EndStatus) -> str | None:
    """Give the run of a launcher that is gone its status, where it is still RUNNING and was made on this host.

    One of a job of a scheduler was made on any: its end is recorded only once the scheduler knows it to be over.

    Returns one line on trouble, after a few seconds at most; never raises.
    """
    record = read_record(folder)
    if record is None or record.run_id is None:
        return None
    uri, run_id = uri_of(record.store), record.run_id
    launcher = read_launcher(folder)
    is_of_job = launcher is not None and launcher.job is not None

    def act() -> None:
        database = database_of(uri)
        if database and not database.exists():
            raise TrackingError(f"{database} is gone")  # connecting would make a new one
        client = connect(uri)
        run = client.get_run(run_id)
        if run.info.status == "RUNNING" and (is_of_job or run.data.tags.get("host") == socket.gethostname()):
            client.set_terminated(run_id, mlflow_status(status), int(last_sign(folder) * 1000))

    try:
        load()  # takes seconds, but cannot hang
        problem = complaint_of(lambda: within(CLOSE_TIMEOUT_S, act, uri))
    except Exception as error:  # noqa: BLE001  an installation that is broken, say: no reason to launch nothing
        problem = f"MLflow: {reason(error, uri)}"
    return f"{problem}; the run {run_id[:8]} may stay RUNNING there: {sync_command(folder.path)}" if problem else None
