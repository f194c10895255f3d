"""The MLflow run of a sweep, parent of its trials."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mvit.config import MlflowTracking
from mvit.credentials import redacted
from mvit.files import lock
from mvit.parent.tracking.mirror import (
    FOLDER_ID,
    find_run,
    log_params,
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
from mvit.rundir.ledger import SweepRequest
from mvit.rundir.paths import RunDir
from mvit.rundir.tracking import TrackingRecord, read_record, write_record


@dataclass(frozen=True)
class SweepSummary:
    """What MLflow is told at the end of a sweep."""

    metrics: Mapping[str, float]
    tags: Mapping[Path, Mapping[str, str]] = field(default_factory=dict[Path, Mapping[str, str]])
    """Of each trial, by its folder."""
    pictures: Sequence[Path] = ()


def params_of(requested: SweepRequest) -> Mapping[str, str]:
    """The axes of a sweep, what all its trials have, and how it goes through them."""
    sweep = requested.sweep.model_dump(mode="json", exclude={"preview"})
    settings = {f"sweep.{key}": str(value) for key, value in sweep.items() if value not in (None, [], False)}
    typed = (text.partition("=") for text in requested.overrides)
    return {**settings, **{key.lstrip("+"): value for key, _, value in typed}}


def open_sweep(
    folder: Path,
    *,
    tracking: MlflowTracking,
    uri: str,
    name: str,
    tags: Mapping[str, str],
    params: Mapping[str, str] | None = None,
) -> str:
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
                    log_params(client, run.info.run_id, params or {})
                run_id = run.info.run_id
                record = TrackingRecord(
                    store=redacted(uri), experiment=tracking.experiment, experiment_id=experiment_id, run_id=run_id
                )
                write_record(RunDir(folder), record)
            return run_id

    return within(ANSWER_TIMEOUT_S, act, uri)


def close_sweep(folder: Path, *, uri: str, status: MlflowStatus, summary: SweepSummary) -> None:
    """End the parent run, and give the trials their tags. Raises as `open_sweep` does."""

    def act() -> None:
        record = read_record(RunDir(folder))
        run_id = record.run_in(uri) if record else None
        if run_id is None:
            raise TrackingError(f"{RunDir(folder).tracking} names no run in {redacted(uri)}")
        client = connect(uri)
        now = int(time.time() * 1000)
        for key, value in summary.metrics.items():
            client.log_metric(run_id, key, value, timestamp=now, step=0)
        for picture in summary.pictures:
            client.log_artifact(run_id, str(picture))  # pyright: ignore[reportUnknownMemberType]
        for trial, tags in summary.tags.items():
            if (of_trial := read_record(RunDir(trial))) and (child := of_trial.run_in(uri)):
                for key, value in tags.items():
                    client.set_tag(child, key, value)
        client.set_terminated(run_id, status, now)

    within(ANSWER_TIMEOUT_S, act, uri)
