"""From the run folder to MLflow, and nothing back: what a store does or fails to do never reaches the run.

The client takes seconds to load and can hang, so all of it happens in threads that nobody has to wait for. What could
not be mirrored waits in the run folder.

    TrackingError       a store that does not do what it was asked; one line, without passwords
"""

from __future__ import annotations

import fcntl
import logging
import os
import re
import socket
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar
from urllib.parse import urlsplit

from mvit.config import MlflowTracking
from mvit.launch.plan import CHECKOUT
from mvit.launch.provenance import redacted, user
from mvit.rundir import JournalReader, RunDir, read_json, write_json

if TYPE_CHECKING:
    from mlflow import MlflowClient

Status = Literal["FINISHED", "FAILED", "KILLED"]
T = TypeVar("T")

FLUSH_EVERY_S = 2.0
RETRY_UP_TO_S = 30.0
"""Longest pause between two attempts while the run goes on."""
LAST_ATTEMPTS = 3
"""Attempts once the run has ended."""
ANSWER_TIMEOUT_S = 60.0
"""Longest wait of who waits for the store: sweeps and `prepare`."""

# MLflow's limits; it refuses what is over them.
MAX_METRICS, MAX_PARAMS, MAX_TAGS = 1000, 100, 100
MAX_PARAM, MAX_TAG = 6000, 8000

SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "CRITICAL",  # it would print tracebacks of what is reported here in one line
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # passwords and all
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
}
"""MLflow's own variables, where the person has set none: as it comes, a dead server costs minutes."""


class TrackingError(Exception):
    """One line."""


def store_uri(tracking: MlflowTracking, checkout: Path) -> str:
    """The configured store, else MLFLOW_TRACKING_URI, else mlflow.db in the checkout. May hold a password."""
    uri = tracking.uri or os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{checkout}/mlflow.db"
    base = checkout if tracking.uri else Path.cwd()  # for MLflow, the variable is relative to the working directory
    file = _after("sqlite:///", uri)
    return f"sqlite:///{base / file}" if file and not file.startswith(":") else uri


def shown(uri: str) -> str:
    """The URI as it may be printed and written."""
    return redacted(uri)


def database_of(uri: str) -> Path | None:
    """The file of a SQLite store; None for any other."""
    file = _after("sqlite:///", uri).partition("?")[0]
    return Path(file).absolute() if file and not file.startswith(":") else None


def _after(prefix: str, uri: str) -> str:
    return uri.removeprefix(prefix) if uri.startswith(prefix) else ""


def connect(uri: str) -> MlflowClient:
    """A client of the store, which is made if need be. Loading MLflow takes 2 to 3 s, making a store 3 to 4 s."""
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    logging.getLogger("urllib3").setLevel(logging.ERROR)  # warns of every attempt
    from mlflow import MlflowClient

    with _one_at_a_time(uri):
        return MlflowClient(tracking_uri=uri)


def ensure_experiment(client: MlflowClient, uri: str, name: str) -> str:
    """The id of the experiment, made if need be; several processes at once get the same one."""
    from mlflow.exceptions import MlflowException

    with _one_at_a_time(uri):
        found = client.get_experiment_by_name(name)
        if found is None:
            try:
                return client.create_experiment(name, artifact_location=artifact_root(uri, name))
            except MlflowException as error:  # on a server, someone may have been faster
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
            found = client.get_experiment_by_name(name)
    if found is None or found.lifecycle_stage != "active":
        raise TrackingError(f"the experiment {name!r} was deleted there; restore it, or set tracking.experiment")
    return str(found.experiment_id)


def artifact_root(uri: str, experiment: str) -> str | None:
    """Where an experiment's artifacts go: beside a SQLite file, else into the checkout; a server decides itself.

    Absolute, since MLflow would take a relative one from the working directory of each reader anew.
    """
    if not re.match(r"(sqlite|postgresql|mysql|mssql)\b", uri):
        return None
    database = database_of(uri)
    root = database.parent if database else CHECKOUT
    return str(root / "mlartifacts" / (re.sub(r"[^\w.-]+", "_", experiment).strip(".") or "_"))


def _one_at_a_time(uri: str) -> AbstractContextManager[None]:
    """Processes that together make a SQLite store crash; an experiment, and they get two or the default one."""
    database = database_of(uri)
    return _lock(database.with_name(f"{database.name}.lock")) if database else nullcontext()


@contextmanager
def _lock(path: Path) -> Generator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


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
    ) -> None:
        self._folder, self._uri, self._experiment = folder, uri, tracking.experiment
        self._params = params
        self._tags = _run_tags(tags, parent_run_id=parent_run_id)
        self._begun = time.time()
        self._record: dict[str, Any] | None = None
        self._mirror: _Mirror | None = None
        self._ending: _Ending | None = None
        self._wake = threading.Event()
        self._problem: str | None = "was not started"
        self._thread = threading.Thread(target=self._work, name="tracking", daemon=True)

    def start(self) -> None:
        """Open the MLflow run and follow the journal; returns at once."""
        self._thread.start()

    def finish(
        self,
        status: Status,
        *,
        artifacts: Sequence[Path],
        tags: Mapping[str, str],
        timeout_s: float = 60.0,
    ) -> str | None:
        """Send what is left, the status, the artifacts. Returns one line when not all of it arrived in time."""
        self._ending = _Ending(status, tuple(artifacts), dict(tags), time.time())
        self._wake.set()
        if self._thread.ident is not None:
            self._thread.join(timeout_s)
        problem = self._problem
        if self._thread.is_alive():
            problem = problem or f"no answer from {shown(self._uri)} within {timeout_s:g} s"
        if problem is None:
            return None
        part = "not mirrored" if self._mirror is None else "not all mirrored"
        return f"MLflow: {part} ({problem}); the run folder keeps everything"

    def run_url_hint(self) -> str | None:
        """Where the run is to be seen; None while it is nowhere."""
        mirror = self._mirror
        if mirror is None:
            return None
        if self._uri.startswith(("http://", "https://")):
            base = shown(self._uri).rstrip("/")
            return f"{base}/#/experiments/{mirror.record['experiment_id']}/runs/{mirror.run_id}"
        database = database_of(self._uri)
        store = database.name if database else shown(self._uri)
        name = self._tags.get("mlflow.runName", "")
        return f"{store}, experiment {self._experiment}, run {name} ({mirror.run_id[:8]})".replace("  ", " ")

    def _work(self) -> None:
        """Follow the journal until `finish` and to the end, trying again what fails."""
        self._problem = None
        left = LAST_ATTEMPTS
        pause_s = 1.0
        while True:
            hopeless = False
            ending = self._ending  # looked at before the journal is read: what was written until then is sent
            try:
                if self._mirror is None:
                    self._mirror = self._open()
                if ending is None:
                    self._mirror.flush()
                else:
                    self._mirror.close(ending)
                self._problem = None
            except Exception as error:  # noqa: BLE001  a client raises many kinds, and none may reach the run
                self._problem = _reason(error, self._uri)
                hopeless = isinstance(error, TrackingError)  # of our own finding: it will not go away
            if ending is not None:
                left -= 1
                if self._problem is None or hopeless or not left:
                    return
                time.sleep(pause_s)
                pause_s = min(2 * pause_s, 4.0)
            elif self._problem is None:
                pause_s = 1.0
                self._wake.wait(FLUSH_EVERY_S)
            else:
                self._wake.wait(pause_s)
                pause_s = 1.0 if self._wake.is_set() else min(2 * pause_s, RETRY_UP_TO_S)

    def _open(self) -> _Mirror:
        """A client on the folder's run: the one it has in this store, else a new one."""
        client = connect(self._uri)
        experiment_id = ensure_experiment(client, self._uri, self._experiment)
        record = self._record or _recorded(self._folder.tracking, self._uri)
        known = _params_of(client, record["run_id"]) if record else None
        if record is None or known is None:
            name = self._tags.get("mlflow.runName")
            began = int(self._begun * 1000)
            run = client.create_run(experiment_id, start_time=began, tags=self._tags, run_name=name)
            record = _record(self._uri, self._experiment, experiment_id, run.info.run_id)
            record |= {"offset": 0, "points": 0}
            self._record = record
            with suppress(OSError):  # a full disk: the run shall be followed, and not be made again
                write_json(self._folder.tracking, record)
            known = frozenset[str]()
        else:
            client.update_run(record["run_id"], status="RUNNING")
        mirror = _Mirror(client, self._folder, record)
        # What stands there cannot be changed, and setting it anew is refused unless it is the same.
        mirror.log_params({key: value for key, value in self._params.items() if key not in known})
        return mirror


@dataclass(frozen=True)
class _Ending:
    """What `Tracker.finish` was given, and when."""

    status: Status
    artifacts: tuple[Path, ...]
    tags: dict[str, str]
    time: float


class _Mirror:
    """One run folder and its open MLflow run; raises what the client raises."""

    def __init__(self, client: MlflowClient, folder: RunDir, record: dict[str, Any]) -> None:
        self.client, self.folder, self.record = client, folder, record
        self.run_id: str = record["run_id"]
        self._reader = JournalReader(folder.journal, offset=record["offset"])
        self._closed: set[str] = set()

    def log_params(self, params: Mapping[str, str]) -> None:
        from mlflow.entities import Param

        entities = [Param(key, _cut(value, MAX_PARAM)) for key, value in params.items()]
        for batch in _batches(entities, MAX_PARAMS):
            self.client.log_batch(self.run_id, params=batch, synchronous=True)

    def flush(self) -> None:
        """Send the journal's new points, then record how far it was read.

        After a crash in between, they are sent again, which adds nothing: MLflow keeps a (key, step, value, timestamp)
        once.
        """
        from mlflow.entities import Metric

        offset = self._reader.offset
        points: list[Metric] = []
        for entry in self._reader.entries():
            at = int(entry["time"] * 1000)
            points += [Metric(key, value, at, entry["step"]) for key, value in entry.get("metrics", {}).items()]
        try:
            for batch in _batches(points, MAX_METRICS):
                self.client.log_batch(self.run_id, metrics=batch, synchronous=True)
            if self._reader.offset > offset:
                record = {**self.record, "offset": self._reader.offset, "points": self.record["points"] + len(points)}
                write_json(self.folder.tracking, record)
                self.record = record
        except BaseException:
            self._reader.offset = offset
            raise

    def close(self, ending: _Ending) -> None:
        """Send the rest. What fails does not keep the others from being sent; a second call does what is left.

        The status comes before the artifacts, which may take longer than anybody waits.
        """
        failures: list[Exception] = []
        for name, act in self._last_acts(ending):
            if name not in self._closed:
                try:
                    act()
                    self._closed.add(name)
                except Exception as error:  # noqa: BLE001  raised below, after the others had their turn
                    failures.append(error)
        if failures:
            raise failures[0]
        if self._reader.torn:
            raise TrackingError(f"{self.folder.journal.name} has lines that are torn")

    def _last_acts(self, ending: _Ending) -> Iterator[tuple[str, Callable[[], None]]]:
        yield "journal", self.flush
        yield "tags", lambda: _set_tags(self.client, self.run_id, ending.tags)
        end_time = int(ending.time * 1000)
        yield "status", lambda: self.client.set_terminated(self.run_id, ending.status, end_time)
        for path in ending.artifacts:
            yield str(path), lambda path=path: self._log_artifact(path)

    def _log_artifact(self, path: Path) -> None:
        """As it lies in the run folder: its folders hold files of the same name."""
        below = path.parent.relative_to(self.folder.path) if path.is_relative_to(self.folder.path) else Path()
        place = below.as_posix() if below != Path() else None
        self.client.log_artifact(self.run_id, str(path), place)  # pyright: ignore[reportUnknownMemberType]


def open_sweep(folder: Path, *, tracking: MlflowTracking, uri: str, name: str, tags: Mapping[str, str]) -> str:
    """The id of the sweep's parent run: the one in `<folder>/tracking.json`, else a new one, recorded there.

    Raises `TrackingError`, at the latest after a minute.
    """

    def act() -> str:
        with _lock(folder / ".tracking.lock"):  # trials may start at once, each in a process of its own
            record = _recorded(folder / "tracking.json", uri)
            if record is None:
                client = connect(uri)
                experiment_id = ensure_experiment(client, uri, tracking.experiment)
                run = client.create_run(experiment_id, tags=_run_tags(tags), run_name=name)
                record = _record(uri, tracking.experiment, experiment_id, run.info.run_id)
                write_json(folder / "tracking.json", record)
            return record["run_id"]

    return _within(ANSWER_TIMEOUT_S, act, uri)


def close_sweep(folder: Path, *, uri: str, status: Status, summary: Mapping[str, float]) -> None:
    """End the parent run, with its summary as metrics. Raises as `open_sweep` does."""

    def act() -> None:
        from mlflow.entities import Metric

        record = _recorded(folder / "tracking.json", uri)
        if record is None:
            raise TrackingError(f"{folder / 'tracking.json'} names no run in {shown(uri)}")
        client = connect(uri)
        now = int(time.time() * 1000)
        for batch in _batches([Metric(key, value, now, 0) for key, value in summary.items()], MAX_METRICS):
            client.log_batch(record["run_id"], metrics=batch, synchronous=True)
        client.set_terminated(record["run_id"], status, now)

    _within(ANSWER_TIMEOUT_S, act, uri)


def prepare(uri: str) -> None:
    """Make the store if it is not there. Raises as `open_sweep` does."""
    _within(ANSWER_TIMEOUT_S, lambda: connect(uri), uri)


def problem_of(act: Callable[[], Any]) -> str | None:
    """One line to show when the store fails `act`, which raises `TrackingError`."""
    try:
        act()
    except TrackingError as error:
        return f"MLflow: {error}"
    return None


def _within(timeout_s: float, act: Callable[[], T], uri: str) -> T:
    """What `act` returns; whatever it raises, or no answer in time, as a `TrackingError`."""
    results: list[T] = []
    errors: list[Exception] = []

    def work() -> None:
        try:
            results.append(act())
        except Exception as error:  # noqa: BLE001  raised below, in the caller's thread
            errors.append(error)

    thread = threading.Thread(target=work, name="tracking", daemon=True)
    thread.start()
    thread.join(timeout_s)
    if errors:
        raise TrackingError(_reason(errors[0], uri)) from errors[0]
    if not results:
        raise TrackingError(f"no answer from {shown(uri)} within {timeout_s:g} s")
    return results[0]


def _record(uri: str, experiment: str, experiment_id: str, run_id: str) -> dict[str, Any]:
    return {"store": shown(uri), "experiment": experiment, "experiment_id": experiment_id, "run_id": run_id}


def _recorded(path: Path, uri: str) -> dict[str, Any] | None:
    """What tracking.json says, if it speaks of this store."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        record = read_json(path)
        if record["store"] == shown(uri) and record["run_id"]:
            return record
    return None


def _params_of(client: MlflowClient, run_id: str) -> frozenset[str] | None:
    """Names of the parameters the run has; None if there is no such run any more."""
    from mlflow.exceptions import MlflowException

    try:
        run = client.get_run(run_id)
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return None
        raise
    return frozenset(run.data.params) if run.info.lifecycle_stage == "active" else None


def _run_tags(tags: Mapping[str, str], *, parent_run_id: str | None = None) -> dict[str, str]:
    """With what MLflow's fluent interface would have set; its client sets nothing."""
    source = {"mlflow.user": user(), "mlflow.source.name": "launch.py", "mlflow.source.type": "LOCAL"}
    given = {key: _cut(value, MAX_TAG) for key, value in tags.items() if value}
    parent = {"mlflow.parentRunId": parent_run_id} if parent_run_id else {}
    return {**source, **given, **parent}


def _set_tags(client: MlflowClient, run_id: str, tags: Mapping[str, str]) -> None:
    from mlflow.entities import RunTag

    entities = [RunTag(key, _cut(value, MAX_TAG)) for key, value in tags.items()]
    for batch in _batches(entities, MAX_TAGS):
        client.log_batch(run_id, tags=batch, synchronous=True)


def _cut(value: str, limit: int) -> str:
    return value if len(value) <= limit else value[: limit - 3] + "..."


def _batches(items: Sequence[T], size: int) -> Iterable[Sequence[T]]:
    return (items[begin : begin + size] for begin in range(0, len(items), size))


def _reason(error: BaseException, uri: str) -> str:
    """One line, without passwords: the cause under what requests, urllib3 and MLflow wrap around it."""
    store = shown(uri)
    cause: BaseException | None = error
    while cause is not None:
        match cause:
            case TrackingError():
                return str(cause)
            case ConnectionRefusedError():
                return f"connection refused at {store}"
            case socket.gaierror():
                return f"{urlsplit(store).hostname or store} is no known host"
            case TimeoutError():
                return f"no answer from {store}"
            case _:
                cause = cause.__cause__ or cause.__context__
    text = " ".join(str(error).strip().splitlines()[:1]) or type(error).__name__
    return _cut(shown(text.replace(uri, store)), 200)
