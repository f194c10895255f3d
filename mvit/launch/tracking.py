"""From the run folder to MLflow, and nothing back: what a store does or fails to do never reaches the run.

The client takes seconds to load and can hang, so all of it happens in threads that nobody has to wait for. What could
not be mirrored waits in the run folder, for `python -m mvit sync`.
"""

from __future__ import annotations

import shlex
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

from mvit.config import MlflowTracking
from mvit.launch.mirror import (
    FOLDER_ID,
    Ending,
    Mirror,
    Status,
    Target,
    TornJournal,
    claimed,
    find_run,
    last_sign,
    new_record,
    open_mirror,
    record_at,
    recorded,
    run_tags,
)
from mvit.launch.store import (
    ANSWER_TIMEOUT_S,
    TrackingError,
    connect,
    database_of,
    ensure_experiment,
    load,
    lock,
    problem_of,
    reason,
    shown,
    uri_of,
    within,
)
from mvit.launch.store import store_uri as store_uri  # the launcher takes it from here
from mvit.launch.supervise import statuses
from mvit.rundir import RunDir, known, read_json, read_run, write_json

FLUSH_EVERY_S = 2.0
RETRY_UP_TO_S = 30.0
"""Longest pause between two attempts while the run goes on."""
LAST_ATTEMPTS = 3
"""Attempts once the run has ended."""
MAX_ERROR = 5000
"""Characters of a failure's message."""
GIVE_UP_WITHIN_S = 0.2
CLOSE_TIMEOUT_S = 5.0
"""Longest wait for the store of a run that is dead."""


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
        self._tags = run_tags(tags, parent_run_id=parent_run_id)
        self._begun = time.time()
        self._mirror: Mirror | None = None
        self._ending: Ending | None = None
        self._wake = threading.Event()
        self._problem: str | None = "was not started"
        self._is_torn = False
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
        give_up: Callable[[], bool] = lambda: False,
    ) -> str | None:
        """Send what is left, the status, the artifacts. Returns one line when not all of it arrived in time.

        Waits no longer once `give_up` says so.
        """
        self._ending = Ending(status, tuple(artifacts), dict(tags), time.time())
        self._wake.set()
        if self._thread.ident is not None:
            deadline = time.monotonic() + timeout_s
            while self._thread.is_alive() and not give_up() and (left := deadline - time.monotonic()) > 0:
                self._thread.join(min(left, GIVE_UP_WITHIN_S))
        problem = self._problem
        if self._thread.is_alive():
            problem = problem or f"no answer from {shown(self._uri)} within {timeout_s:g} s"
        if problem is None:
            return None
        part = "not mirrored" if self._mirror is None else "not all mirrored"
        if self._is_torn:  # nothing else is missing
            return f"MLflow: {part} ({problem}); the run folder keeps everything"
        return f"MLflow: {part} ({problem}); later: {sync_command(self._folder.path)}"

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
        self._problem = None
        with claimed(self._folder):  # a sync leaves the folder alone meanwhile
            if recorded(self._folder.tracking, self._uri) is None:
                with suppress(OSError):  # where a sync sends what this may never reach
                    write_json(self._folder.tracking, new_record(self._uri, self._experiment))
            self._follow()

    def _follow(self) -> None:
        """Follow the journal until `finish` and to the end, trying again what fails."""
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
                self._problem = reason(error, self._uri)
                hopeless = isinstance(error, TrackingError)  # of our own finding: it will not go away
                self._is_torn = isinstance(error, TornJournal)
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

    def _open(self) -> Mirror:
        client = connect(self._uri)
        target = Target(self._uri, self._experiment, ensure_experiment(client, self._uri, self._experiment))
        mirror = open_mirror(client, self._folder, target=target, tags=self._tags, began=self._begun)
        mirror.reopen()
        mirror.set_tags(self._tags)
        mirror.set_params(self._params)
        return mirror


def open_sweep(folder: Path, *, tracking: MlflowTracking, uri: str, name: str, tags: Mapping[str, str]) -> str:
    """The id of the sweep's parent run: the one in `<folder>/tracking.json`, else a new one, recorded there.

    Raises `TrackingError`, at the latest after a minute.
    """

    def act() -> str:
        with lock(folder / ".tracking.lock"):  # trials may start at once, each in a process of its own
            record = recorded(folder / "tracking.json", uri)
            if record is None:
                client = connect(uri)
                experiment_id = ensure_experiment(client, uri, tracking.experiment)
                run = find_run(client, experiment_id, folder)
                if run is None:
                    wanted = run_tags({**tags, FOLDER_ID: folder.name})
                    run = client.create_run(experiment_id, tags=wanted, run_name=name)
                ids = {"experiment_id": experiment_id, "run_id": run.info.run_id}
                record = new_record(uri, tracking.experiment) | ids
                write_json(folder / "tracking.json", record)
            return record["run_id"]

    return within(ANSWER_TIMEOUT_S, act, uri)


def close_sweep(folder: Path, *, uri: str, status: Status, summary: Mapping[str, float]) -> None:
    """End the parent run, with its summary as metrics. Raises as `open_sweep` does."""

    def act() -> None:
        record = recorded(folder / "tracking.json", uri)
        if record is None:
            raise TrackingError(f"{folder / 'tracking.json'} names no run in {shown(uri)}")
        client = connect(uri)
        now = int(time.time() * 1000)
        for key, value in summary.items():
            client.log_metric(record["run_id"], key, value, timestamp=now, step=0)
        client.set_terminated(record["run_id"], status, now)

    within(ANSWER_TIMEOUT_S, act, uri)


def close_dead(folder: RunDir, status: str) -> str | None:
    """Give the run of a launcher that is gone its status, where it is still RUNNING and was made on this host.

    Returns one line on trouble, after a few seconds at most; never raises.
    """
    record = record_at(folder.tracking)
    if record is None or record["run_id"] is None:
        return None
    uri, run_id = uri_of(record["store"]), record["run_id"]

    def act() -> None:
        database = database_of(uri)
        if database and not database.exists():
            raise TrackingError(f"{database} is gone")  # connecting would make a new one
        client = connect(uri)
        run = client.get_run(run_id)
        if run.info.status == "RUNNING" and run.data.tags.get("host") == socket.gethostname():
            client.set_terminated(run_id, status, int(last_sign(folder) * 1000))

    try:
        load()  # takes seconds, but cannot hang
        problem = problem_of(lambda: within(CLOSE_TIMEOUT_S, act, uri))
    except Exception as error:  # noqa: BLE001  an installation that is broken, say: no reason to launch nothing
        problem = f"MLflow: {reason(error, uri)}"
    return f"{problem}; the run {run_id[:8]} may stay RUNNING there: {sync_command(folder.path)}" if problem else None


def of_folder(folder: RunDir) -> tuple[dict[str, str], dict[str, str]]:
    """Parameters and tags of the folder's run, without those of a provenance that is torn; raises `RunDirError`."""
    config, plan = read_run(folder)
    made_of = known(folder.provenance) or {}
    tags = {
        "mlflow.runName": f"{config.name}-{folder.path.name}",
        "mlflow.source.git.commit": str(made_of.get("commit") or ""),
        "mlflow.user": str(made_of.get("user") or ""),
        "host": str(made_of.get("host") or ""),
        "topology": f"{plan.world_size} {plan.device}",
        "folder": str(folder.path),
    }
    return _flat(config.model_dump(mode="json")), tags


def artifacts_of(folder: RunDir, *, status: Status) -> list[Path]:
    """The files that go with a run that ended so; logs and states where someone will ask why."""
    files = [folder.run, folder.provenance, folder.patch, folder.result, folder.journal, picture_of(folder)]
    if status != "FINISHED":
        files += [folder.error, *sorted(folder.logs.rglob("*.log")), *sorted(folder.status.glob("[!.]*.json"))]
    return [file for file in files if file.is_file()]


def failure_tags(folder: RunDir) -> dict[str, str]:
    """The first cause of a failure, as the parent recorded it, else as a worker did."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        return error_tags(read_json(folder.error))
    errors = [status["error"] for status in statuses(folder) if status.get("error")]
    if not errors:
        return {}
    first = min(errors, key=lambda error: error["time"])
    return {"error": f"{first['type']}: {first['message']}"[:MAX_ERROR]}


def error_tags(error: Mapping[str, Any]) -> dict[str, str]:
    """Tags for what error.json holds."""
    return {"error": str(error["message"])[:MAX_ERROR], "error.kind": str(error["kind"])}


def picture_of(folder: RunDir) -> Path:
    """Where the picture of the confusion matrix is."""
    return folder.path / "confusion_matrix.png"


def sync_command(path: Path) -> str:
    """What a person types to send the rest."""
    place = path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
    return f"python -m mvit sync {shlex.quote(str(place))}"


def _flat(value: Any, prefix: str = "") -> dict[str, str]:
    """`{"a": {"b": 1}}` as `{"a.b": "1"}`."""
    if not isinstance(value, dict):
        return {prefix: str(value)}
    parts = cast(dict[str, Any], value)
    return {k: v for key, part in parts.items() for k, v in _flat(part, f"{prefix}.{key}".lstrip(".")).items()}
