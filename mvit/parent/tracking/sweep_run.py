"""The MLflow run of a sweep, parent of its trials."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

from mvit.config import MlflowTracking
from mvit.credentials import redacted
from mvit.files import lock
from mvit.parent.tracking.mirror import (
    FOLDER_ID,
    find_run,
    run_tags,
)
from mvit.parent.tracking.store import (
    ANSWER_TIMEOUT_S,
    MlflowStatus,
    TrackingError,
    connect,
    ensure_experiment,
    within,
)
from mvit.rundir.paths import RunDir
from mvit.rundir.tracking import TrackingRecord, read_record, write_record


def open_sweep(folder: Path, *, tracking: MlflowTracking, uri: str, name: str, tags: Mapping[str, str]) -> str:
    """The id of the sweep's parent run: the one in `<folder>/tracking.json`, else a new one, recorded there.

    Raises `TrackingError`, at the latest after a minute.
    """

    def act() -> str:
        with lock(folder / ".tracking.lock", create=True):  # trials may start at once, each in a process of its own
            record = read_record(RunDir(folder))
            run_id = record.run_in(uri) if record else None
            if run_id is None:
                client = connect(uri)
                experiment_id = ensure_experiment(client, uri, tracking.experiment)
                run = find_run(client, experiment_id, folder)
                if run is None:
                    all_tags = run_tags({**tags, FOLDER_ID: folder.name})
                    run = client.create_run(experiment_id, tags=all_tags, run_name=name)
                run_id = run.info.run_id
                record = TrackingRecord(
                    store=redacted(uri), experiment=tracking.experiment, experiment_id=experiment_id, run_id=run_id
                )
                write_record(RunDir(folder), record)
            return run_id

    return within(ANSWER_TIMEOUT_S, act, uri)


def close_sweep(folder: Path, *, uri: str, status: MlflowStatus, summary: Mapping[str, float]) -> None:
    """End the parent run, with its summary as metrics. Raises as `open_sweep` does."""

    def act() -> None:
        record = read_record(RunDir(folder))
        run_id = record.run_in(uri) if record else None
        if run_id is None:
            raise TrackingError(f"{RunDir(folder).tracking} names no run in {redacted(uri)}")
        client = connect(uri)
        now = int(time.time() * 1000)
        for key, value in summary.items():
            client.log_metric(run_id, key, value, timestamp=now, step=0)
        client.set_terminated(run_id, status, now)

    within(ANSWER_TIMEOUT_S, act, uri)
