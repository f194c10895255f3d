"""A tracking store: where it is, how it is opened, and what its trouble is called, without passwords.

TrackingError       a store that does not do what it was asked; one line, without passwords
"""

from __future__ import annotations

import logging
import os
import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar
from urllib.parse import urlsplit

from mvit.config import MlflowTracking
from mvit.credentials import hidden, redacted
from mvit.errors import first_line
from mvit.places import PROJECT

if TYPE_CHECKING:
    from mlflow import MlflowClient
from mvit.files import lock

T = TypeVar("T")
MlflowStatus = Literal["FINISHED", "FAILED", "KILLED"]
"""How a run may have ended for MLflow, which knows no pause."""
_STATUS = re.compile(r"too many (\d{3}) error responses")

ANSWER_TIMEOUT_S = 60.0
"""Longest wait of who waits for the store: sweeps and `prepare`."""

SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "CRITICAL",  # it would print tracebacks of what is reported here in one line
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # passwords and all
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    # Whoever can wait tries again by themselves; the client would also repeat what a slow server is just doing, and so
    # make a run twice.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
}
"""MLflow's own variables, where the person has set none: as it comes, a dead server costs minutes."""


class TrackingError(Exception):
    """One line."""


def store_uri(tracking: MlflowTracking, project: Path) -> str:
    """The configured store, else MLFLOW_TRACKING_URI, else mlflow.db in the project. May hold a password."""
    uri = tracking.uri or os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{project}/mlflow.db"
    base = project if tracking.uri else Path.cwd()  # for MLflow, the variable is relative to the working directory
    file = _after("sqlite:///", uri)
    return f"sqlite:///{base / file}" if file and not file.startswith(":") else uri


def uri_of(store: str) -> str:
    """The URI of a store as tracking.json names it: with the environment's credentials, if those are for this one."""
    environment = os.environ.get("MLFLOW_TRACKING_URI", "")
    return environment if redacted(environment) == store else store


def database_of(uri: str) -> Path | None:
    """The file of a SQLite store; None for any other."""
    file = _after("sqlite:///", uri).partition("?")[0]
    return Path(file).absolute() if file and not file.startswith(":") else None


def _after(prefix: str, uri: str) -> str:
    return uri.removeprefix(prefix) if uri.startswith(prefix) else ""


def load() -> None:
    """Load MLflow with our settings, which takes 2 to 3 s the first time."""
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    logging.getLogger("urllib3").setLevel(logging.ERROR)  # warns of every attempt
    import mlflow  # noqa: F401  # pyright: ignore[reportUnusedImport]  (loading it is the purpose)


def connect(uri: str, *, request_timeout_s: int = 10) -> MlflowClient:
    """A client of the store, which is made if need be; making one takes 3 to 4 s.

    The limit for one answer of a server is that of the process, set by the first call.
    """
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", str(request_timeout_s))
    load()
    from mlflow import MlflowClient

    with _one_at_a_time(uri):
        return MlflowClient(tracking_uri=uri)


def ensure_experiment(client: MlflowClient, uri: str, name: str) -> str:
    """The id of the experiment, made if need be; several processes at once get the same one."""
    from mlflow.exceptions import MlflowException

    with _one_at_a_time(uri):
        experiment = client.get_experiment_by_name(name)
        if experiment is None:
            try:
                return client.create_experiment(name, artifact_location=artifact_root(uri, name))
            except MlflowException as error:  # on a server, someone may have been faster
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
            experiment = client.get_experiment_by_name(name)
    if experiment is None or experiment.lifecycle_stage != "active":
        raise TrackingError(f"the experiment {name!r} was deleted there; restore it, or set tracking.experiment")
    return str(experiment.experiment_id)


def artifact_root(uri: str, experiment: str) -> str | None:
    """Where an experiment's artifacts go: beside a SQLite file, else into the project; a server decides itself.

    Absolute, since MLflow would take a relative one from the working directory of each reader anew.
    """
    if not re.match(r"(sqlite|postgresql|mysql|mssql)\b", uri):
        return None
    database = database_of(uri)
    root = database.parent if database else PROJECT
    return str(root / "mlartifacts" / (re.sub(r"[^\w.-]+", "_", experiment).strip(".") or "_"))


def _one_at_a_time(uri: str) -> AbstractContextManager[object]:
    """Processes that together make a SQLite store crash; an experiment, and they get two or the default one."""
    database = database_of(uri)
    return lock(database.with_name(f"{database.name}.lock"), create=True) if database else nullcontext()


def prepare(uri: str) -> None:
    """Make the store if it is not there. Raises as `open_sweep` does."""
    within(ANSWER_TIMEOUT_S, lambda: connect(uri), uri)


def complaint_of(act: Callable[[], Any]) -> str | None:
    """One line to show when the store fails `act`, which raises `TrackingError`."""
    try:
        act()
    except TrackingError as error:
        return f"MLflow: {error}"
    return None


def within(timeout_s: float, act: Callable[[], T], uri: str) -> T:
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
        raise TrackingError(reason(errors[0], uri)) from errors[0]
    if not results:
        raise TrackingError(f"no answer from {redacted(uri)} within {timeout_s:g} s")
    return results[0]


def cut(value: str, limit: int) -> str:
    return value if len(value) <= limit else value[: limit - 3] + "..."


def reason(error: BaseException, uri: str) -> str:
    """One line, without passwords: the cause under what requests, urllib3 and MLflow wrap around it."""
    store = redacted(uri)
    for cause in _causes(error):
        match cause:
            case TrackingError():
                return str(cause)
            case ConnectionRefusedError():
                return f"connection refused at {store}"
            case socket.gaierror():
                return f"unknown host {urlsplit(store).hostname or store}"
            case TimeoutError():
                return f"no answer from {store}"
            case _:
                if status := _STATUS.search(str(cause)):
                    return f"{store} answers with HTTP status {status[1]}"
    return cut(hidden(first_line(error).replace(uri, store), uri), 200)


def is_slow(error: BaseException) -> bool:
    """Whether a store let a request wait for too long, rather than refused it."""
    return any(isinstance(cause, TimeoutError) for cause in _causes(error))


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error, what caused it, what caused that."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__
