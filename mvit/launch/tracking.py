"""From the run folder to MLflow. The client loads in seconds and can hang: all of it happens in a thread.

What could not be mirrored waits in the run folder; nothing here ends or delays a run.
"""

from __future__ import annotations

import fcntl
import logging
import os
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

from mvit.config import MlflowTracking
from mvit.rundir import JournalReader, RunDir, read_json, write_json

if TYPE_CHECKING:
    from mlflow import MlflowClient

EVERY_S = 2.0
MAX_BATCH = 1000
MAX_PARAM = 6000
Status = Literal["FINISHED", "FAILED", "KILLED"]


def store_uri(tracking: MlflowTracking, checkout: Path) -> str:
    """The configured store, else MLFLOW_TRACKING_URI, else mlflow.db in the checkout. May hold a password."""
    return tracking.uri or os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{checkout}/mlflow.db"


def shown(uri: str) -> str:
    """The URI as it may be printed and written: without user and password."""
    return re.sub(r"(?<=://)[^/@]*@", "", uri)


def connect(uri: str) -> MlflowClient:
    """A client of the store; loading MLflow takes 2 to 3 s."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.ERROR)
    from mlflow import MlflowClient

    logging.getLogger("mlflow").setLevel(logging.ERROR)  # MLflow sets its own level when it is loaded
    with _locked(uri):
        return MlflowClient(tracking_uri=uri)


def database_of(uri: str) -> Path | None:
    """The file of a SQLite store."""
    parts = urlsplit(uri)
    return Path(parts.path.removeprefix("/")) if parts.scheme == "sqlite" else None


@contextmanager
def _file_lock(path: Path) -> Iterator[None]:
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _locked(uri: str) -> Any:
    """Creating a SQLite store, or an experiment in it, from several processes at once crashes or mixes them up."""
    database = database_of(uri)
    return _file_lock(database.with_name(f".{database.name}.lock")) if database else nullcontext()


def ensure_experiment(client: MlflowClient, uri: str, name: str) -> str:
    """The id of the experiment, made if need be; artifacts of a SQLite store stand beside it."""
    with _locked(uri):
        found = client.get_experiment_by_name(name)
        if found is not None:
            return str(found.experiment_id)
        database = database_of(uri)
        root = (database.resolve().parent / "mlartifacts" / name).as_uri() if database else None
        return str(client.create_experiment(name, artifact_location=root))


class Tracker:
    """Mirrors one run folder while the run goes on."""

    def __init__(
        self,
        folder: RunDir,
        *,
        tracking: MlflowTracking,
        uri: str,
        params: Mapping[str, str],
        tags: Mapping[str, str],
        parent_run_id: str | None = None,
    ) -> None:
        self._folder, self._uri, self._experiment = folder, uri, tracking.experiment
        self._params = dict(params)
        source = {"mlflow.source.name": "launch.py", "mlflow.source.type": "LOCAL"}
        parent = {"mlflow.parentRunId": parent_run_id} if parent_run_id else {}
        self._tags = {key: value for key, value in {**source, **tags, **parent}.items() if value}
        self._reader = JournalReader(folder.journal)
        self._ended = threading.Event()
        self._end: Callable[[MlflowClient, str], None] | None = None
        self._problem: str | None = None
        self._thread = threading.Thread(target=self._mirror, daemon=True, name="tracking")

    def start(self) -> None:
        """Open the MLflow run and follow the journal, in a thread."""
        self._thread.start()

    def finish(
        self, status: Status, *, artifacts: Sequence[Path], tags: Mapping[str, str], timeout_s: float = 60.0
    ) -> str | None:
        """Send the rest, the artifacts and the status. Returns one line when not all of it arrived."""

        def end(client: MlflowClient, run_id: str) -> None:
            for key, value in tags.items():
                client.set_tag(run_id, key, value)
            for path in artifacts:
                client.log_artifact(run_id, str(path), "logs" if path.suffix == ".log" else None)
            client.set_terminated(run_id, status)

        self._end = end
        self._ended.set()
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            self._problem = self._problem or f"no answer within {timeout_s:.0f} s"
        if self._problem is None:
            return None
        return f"MLflow: {shown(self._uri)} does not have all of this run ({self._problem}); the run folder does"

    def _mirror(self) -> None:
        client: MlflowClient | None = None
        run_id = ""
        while True:
            ending = self._ended.is_set()  # asked before reading: what is written until then is read below
            try:
                if client is None:
                    client = connect(self._uri)
                    experiment_id = ensure_experiment(client, self._uri, self._experiment)
                if not run_id:
                    run_id = self._open(client, experiment_id)
                self._send(client, run_id)
                if ending and self._end:
                    self._end(client, run_id)
                self._problem = None
            except Exception as error:  # the client raises many kinds; none may reach the run
                self._problem = shown(_one_line(error))
            if ending:
                return
            self._ended.wait(EVERY_S)

    def _open(self, client: MlflowClient, experiment_id: str) -> str:
        from mlflow.entities import Param

        name = self._tags.get("mlflow.runName")
        run_id = str(client.create_run(experiment_id, tags=self._tags, run_name=name).info.run_id)
        params = [Param(key, value[:MAX_PARAM]) for key, value in self._params.items()]
        for begin in range(0, len(params), 100):
            client.log_batch(run_id, params=params[begin : begin + 100])
        self._record = {"store": shown(self._uri), "experiment": self._experiment, "experiment_id": experiment_id}
        self._record |= {"run_id": run_id, "offset": 0}
        write_json(self._folder.tracking, self._record)
        return run_id

    def _send(self, client: MlflowClient, run_id: str) -> None:
        from mlflow.entities import Metric

        offset = self._reader.offset
        points: list[Metric] = []
        for entry in self._reader.entries():
            stamp = int(entry["time"] * 1000)
            points += [Metric(key, value, stamp, entry["step"]) for key, value in entry.get("metrics", {}).items()]
        try:
            for begin in range(0, len(points), MAX_BATCH):
                client.log_batch(run_id, metrics=points[begin : begin + MAX_BATCH])
        except Exception:
            self._reader.offset = offset  # sent again later; the same point twice is one point
            raise
        if points:
            write_json(self._folder.tracking, self._record | {"offset": self._reader.offset})


def open_sweep(folder: Path, *, tracking: MlflowTracking, uri: str, name: str, tags: Mapping[str, str]) -> str:
    """The parent run of a sweep, recorded in the sweep's folder; raises what the client raises."""
    client = connect(uri)
    experiment_id = ensure_experiment(client, uri, tracking.experiment)
    run = client.create_run(experiment_id, tags=dict(tags), run_name=name)
    folder.mkdir(parents=True, exist_ok=True)
    record = {"store": shown(uri), "experiment": tracking.experiment, "experiment_id": experiment_id}
    write_json(folder / "tracking.json", {**record, "run_id": run.info.run_id})
    return str(run.info.run_id)


def close_sweep(folder: Path, *, uri: str, status: Status, summary: Mapping[str, float]) -> None:
    """End the parent run with its summary as metrics."""
    client = connect(uri)
    run_id = read_json(folder / "tracking.json")["run_id"]
    for key, value in summary.items():
        client.log_metric(run_id, key, value)
    client.set_terminated(run_id, status)


def problem_of(act: Callable[[], Any]) -> str | None:
    """One line when the store fails `act`."""
    try:
        act()
    except Exception as error:  # as above: a tracking store never ends a run
        return f"MLflow: {shown(_one_line(error))}"
    return None


def _one_line(error: Exception) -> str:
    with suppress(IndexError):
        return str(error).strip().splitlines()[0][:300]
    return type(error).__name__
