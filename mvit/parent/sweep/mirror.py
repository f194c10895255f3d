"""A sweep in MLflow: the run that its trials are below."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path

from mvit import console
from mvit.config import MlflowTracking, Tracking
from mvit.parent.host import CHECKOUT
from mvit.parent.tracking.content import mlflow_status
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
from mvit.rundir.ending import EndStatus, record_mirrored
from mvit.rundir.ledger import SweepRequest
from mvit.rundir.paths import RunDir


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
        tags = {
            "mvit.kind": "sweep",
            "mvit.sweep": self._folder.name.rpartition("-")[2],
            "folder": str(self._folder),
            "host": socket.gethostname(),
        }
        uri = store_uri(tracking, CHECKOUT)
        params = params_of(self._requested)
        problem = complaint_of(
            lambda: open_sweep(self._folder, tracking=tracking, uri=uri, name=name, tags=tags, params=params)
        )
        if problem:
            console.complain([problem])
            self._tracking = None
        elif problem := self._dashboard_problem(tracking, uri):
            console.complain([problem])

    def _note_problem(self, tracking: MlflowTracking, uri: str) -> str | None:
        def act() -> str | None:
            client = connect(uri)
            experiment_id = ensure_experiment(client, uri, tracking.experiment)
            return keep_experiment_note(client, experiment_id, runs=self._folder.parents[1])

        return self._problem_of(act, uri)

    def _dashboard_problem(self, tracking: MlflowTracking, uri: str) -> str | None:
        def act() -> str | None:
            client = connect(uri)
            return keep_dashboard(client, ensure_experiment(client, uri, tracking.experiment), uri=uri)

        return self._problem_of(act, uri)

    @staticmethod
    def _problem_of(act: Callable[[], str | None], uri: str) -> str | None:
        try:
            return within(ANSWER_TIMEOUT_S, act, uri)
        except TrackingError as error:
            return f"MLflow: {error}"

    def close(self, end: EndStatus, summary: SweepSummary) -> None:
        """Send its end."""
        if self._tracking is None:
            return
        uri = store_uri(self._tracking, CHECKOUT)
        status = mlflow_status(end)
        problem = complaint_of(lambda: close_sweep(self._folder, uri=uri, status=status, summary=summary))
        if problem:
            console.complain([problem])
        elif note_problem := self._note_problem(self._tracking, uri):
            console.complain([note_problem])
        record_mirrored(RunDir(self._folder), mirrored=problem is None)
