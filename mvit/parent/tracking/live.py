"""From the run folder to MLflow, and nothing back: what a store does or fails to do never reaches the run.

The client takes seconds to load and can hang, so all of it happens in threads that nobody has to wait for. What could
not be mirrored waits in the run folder, for `python -m mvit sync`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from mvit.config import MlflowTracking
from mvit.credentials import redacted
from mvit.parent.tracking.content import dataset_of, location, mlflow_status, parameters_of, sync_command, tags_of
from mvit.parent.tracking.dashboard import keep_dashboard
from mvit.parent.tracking.mirror import (
    Closing,
    Mirror,
    Target,
    TornJournal,
    UsedDataset,
    claimed,
    open_mirror,
    run_tags,
)
from mvit.parent.tracking.store import (
    TrackingError,
    connect,
    ensure_experiment,
    is_slow,
    reason,
    store_uri,
)
from mvit.places import PROJECT
from mvit.rundir.ending import EndStatus
from mvit.rundir.frozen import Run
from mvit.rundir.paths import RunDir
from mvit.rundir.sweep import is_sweep
from mvit.rundir.tracking import TrackingRecord, read_record, write_record

FLUSH_EVERY_S = 2.0
RETRY_UP_TO_S = 30.0
"""Longest pause between two attempts while the run goes on."""
LAST_ATTEMPTS = 3
"""Attempts once the run has ended; a store that is only slow gets all the time there is."""
LAST_PAUSE_S = 1.5
GIVE_UP_WITHIN_S = 0.2


@dataclass(frozen=True)
class News:
    """A line for a person."""

    line: str
    is_good: bool


def tracker_of(run: Run) -> Tracker | None:
    """The tracker of a run, below its sweep's run if it is a trial; None for one that is not to be mirrored."""
    tracking, above = run.config.tracking, run.folder.path.parent
    if not isinstance(tracking, MlflowTracking):
        return None
    record = read_record(RunDir(above)) if is_sweep(above) else None
    return Tracker(
        run.folder,
        tracking=tracking,
        uri=store_uri(tracking, PROJECT),
        params=parameters_of(run),
        tags=tags_of(run),
        parent_run_id=record.run_id if record else None,
        dataset=dataset_of(run),
    )


class Tracker:
    """Mirrors one run folder, from a thread of its own, while the run goes on.

    A folder that was mirrored before continues its MLflow run where tracking.json says.
    """

    def __init__(
        self,
        folder: RunDir,
        *,
        tracking: MlflowTracking,
        uri: str,
        params: Mapping[str, str],
        tags: Mapping[str, str],
        parent_run_id: str | None = None,
        dataset: UsedDataset | None = None,
    ) -> None:
        self._dataset = dataset
        self._folder, self._uri, self._experiment = folder, uri, tracking.experiment
        self._params = params
        self._tags = run_tags(tags, parent_run_id=parent_run_id)
        self._begun = time.time()
        self._mirror: Mirror | None = None
        self._closing: Closing | None = None
        self._closed_by = 0.0
        self._wake = threading.Event()
        self._problem: str | None = "was not started"
        self._is_single = parent_run_id is None
        self._dashboard_problem: str | None = None
        self._is_torn = self._announced_place = self._announced_problem = False
        self._thread = threading.Thread(target=self._work, name="tracking", daemon=True)

    def start(self) -> None:
        """Open the MLflow run and follow the journal; returns at once."""
        self._problem = None
        self._thread.start()

    def finish(
        self,
        status: EndStatus,
        *,
        artifacts: Sequence[Path],
        tags: Mapping[str, str],
        timeout_s: float = 60.0,
        give_up: Callable[[], bool] = lambda: False,
    ) -> str | None:
        """Send what is left, the status, the artifacts. Returns one line when not all of it arrived in time.

        Waits no longer once `give_up` says so.
        """
        self._closed_by = time.monotonic() + timeout_s
        self._closing = Closing(mlflow_status(status), tuple(artifacts), dict(tags), time.time())
        self._wake.set()
        if self._thread.ident is not None:
            while self._thread.is_alive() and not give_up() and (left := self._closed_by - time.monotonic()) > 0:
                self._thread.join(min(left, GIVE_UP_WITHIN_S))
        problem = self._problem
        if self._thread.is_alive():
            problem = problem or f"no answer from {redacted(self._uri)} within {timeout_s:g} s"
        if problem is None:
            return None
        part = "not mirrored" if self._mirror is None else "not all mirrored"
        if self._is_torn:  # nothing else is missing
            return f"MLflow: {part} ({problem}); the run folder keeps everything"
        return f"MLflow: {part} ({problem}); later: {sync_command(self._folder.path)}"

    def news(self) -> News | None:
        """What a person should know, once: where the run is to be seen, or that the store does not answer."""
        if self._mirror is not None and not self._announced_place:
            self._announced_place = True
            where = location(self._folder, name=self._tags.get("mlflow.runName", ""))
            return News(f"mvit: MLflow: {where}", is_good=True)
        if problem := self._dashboard_problem:
            self._dashboard_problem = None
            return News(problem, is_good=False)
        if self._mirror is None and self._problem and not self._announced_problem and self._thread.ident is not None:
            self._announced_problem = True
            return News(f"MLflow: {self._problem}; the run goes on, and is sent once it answers", is_good=False)
        return None

    def _work(self) -> None:
        with claimed(self._folder):  # a sync leaves the folder alone meanwhile
            record = read_record(self._folder)
            if record is None or record.run_in(self._uri) is None:
                with suppress(OSError):  # where a sync sends what this may never reach
                    write_record(self._folder, TrackingRecord(store=redacted(self._uri), experiment=self._experiment))
            self._follow()

    def _follow(self) -> None:
        """Follow the journal until `finish` and to the end, trying again what fails."""
        left = LAST_ATTEMPTS
        pause_s = 1.0
        while True:
            hopeless = slow = False
            closing = self._closing  # looked at before the journal is read: what was written until then is sent
            try:
                if self._mirror is None:
                    self._mirror = self._open()
                if closing is None:
                    self._mirror.flush()
                else:
                    self._mirror.close(closing)
                    self._keep_experiment_note(self._mirror)
                self._problem = None
            except Exception as error:  # noqa: BLE001  a client raises many kinds, and none may reach the run
                self._problem = reason(error, self._uri)
                hopeless = isinstance(error, TrackingError)  # of our own finding: it will not go away
                slow = is_slow(error)
                self._is_torn = isinstance(error, TornJournal)
            if closing is not None:
                left -= not slow
                if self._problem is None or hopeless or not left or time.monotonic() >= self._closed_by:
                    return
                time.sleep(LAST_PAUSE_S)
            elif self._problem is None:
                pause_s = 1.0
                self._wake.wait(FLUSH_EVERY_S)
            else:
                self._wake.wait(pause_s)
                pause_s = 1.0 if self._wake.is_set() else min(2 * pause_s, RETRY_UP_TO_S)

    def _keep_experiment_note(self, mirror: Mirror) -> None:
        """Once the run's own end has arrived; for the trials of a sweep, the sweep does."""
        if self._is_single and mirror.record.experiment_id:
            from mvit.parent.tracking.experiment_note import keep_experiment_note  # loads Hydra, by the rules

            runs = self._folder.path.parents[1]
            experiment = mirror.record.experiment_id
            keep_experiment_note(mirror.client, experiment, name=self._experiment, uri=self._uri, runs=runs)

    def _open(self) -> Mirror:
        client = connect(self._uri)
        target = Target(self._uri, self._experiment, ensure_experiment(client, self._uri, self._experiment))
        mirror = open_mirror(client, self._folder, target=target, tags=self._tags, began=self._begun)
        mirror.reopen()
        mirror.set_tags(self._tags)
        mirror.set_params(self._params)
        if self._dataset:
            mirror.set_dataset(self._dataset)
        if self._is_single:  # for its trials, the sweep does
            self._dashboard_problem = keep_dashboard(client, target.experiment_id, uri=self._uri)
        return mirror
