"""A sweep in MLflow: the run that its trials are below."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from mvit import console
from mvit.config import MlflowTracking, Tracking
from mvit.parent.tracking.content import mlflow_status, tags_of_sweep
from mvit.parent.tracking.dashboard import keep_dashboard
from mvit.parent.tracking.experiment_note import keep_experiment_note
from mvit.parent.tracking.names import name_of_sweep
from mvit.parent.tracking.store import (
    ANSWER_TIMEOUT_S,
    TrackingError,
    complaint_of,
    connect,
    ensure_experiment,
    store_uri,
    within,
)
from mvit.parent.tracking.sweep_run import SweepSummary, close_sweep, open_sweep, params_of
from mvit.places import PROJECT
from mvit.rundir.ending import EndStatus, record_mirrored
from mvit.rundir.ledger import SweepRequest
from mvit.rundir.paths import RunDir

if TYPE_CHECKING:
    from mvit.parent.tracking.store import MlflowClient


class SweepMirror:
    """The parent run of a sweep; without a store, or where it does not answer, nothing."""

    def __init__(self, folder: Path, tracking: Tracking, requested: SweepRequest) -> None:
        self._folder, self._requested = folder, requested
        self._tracking = tracking if isinstance(tracking, MlflowTracking) else None

    def open(self) -> None:
        """Make the run, or find it again."""
        if (tracking := self._tracking) is None:
            return
        name = name_of_sweep(self._folder, self._requested)
        tags = tags_of_sweep(self._folder)
        uri = store_uri(tracking, PROJECT)
        params = params_of(self._requested)
        problem = complaint_of(
            lambda: open_sweep(self._folder, tracking=tracking, uri=uri, name=name, tags=tags, params=params)
        )
        if problem:
            console.complain([problem])
            self._tracking = None
        elif problem := _kept(partial(keep_dashboard, uri=uri), uri=uri, experiment=tracking.experiment):
            console.complain([problem])

    def close(self, end: EndStatus, summary: SweepSummary) -> None:
        """Send its end."""
        if self._tracking is None:
            return
        uri = store_uri(self._tracking, PROJECT)
        status = mlflow_status(end)
        problem = complaint_of(lambda: close_sweep(self._folder, uri=uri, status=status, summary=summary))
        if problem:
            console.complain([problem])
        else:
            experiment = self._tracking.experiment
            keep = partial(keep_experiment_note, name=experiment, uri=uri, runs=self._folder.parents[1])
            if note_problem := _kept(keep, uri=uri, experiment=experiment):
                console.complain([note_problem])
        record_mirrored(RunDir(self._folder), mirrored=problem is None)


def _kept(keep: Callable[[MlflowClient, str], str | None], *, uri: str, experiment: str) -> str | None:
    """Keep something of the experiment up to date; returns one line where that fails."""

    def act() -> str | None:
        client = connect(uri)
        return keep(client, ensure_experiment(client, uri, experiment))

    try:
        return within(ANSWER_TIMEOUT_S, act, uri)
    except TrackingError as error:
        return f"MLflow: {error}"
