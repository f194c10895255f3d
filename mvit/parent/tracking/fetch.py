"""Records of the runs in a tracking store, for those who do not have the folders."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownLambdaType=false
# MLflow's pages and repositories are typed in part.

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from mvit import console
from mvit.errors import RunDirError
from mvit.parent.report.record import Record, SweepRecord, Value
from mvit.parent.report.row import result_row
from mvit.parent.tracking.mirror import FOLDER_ID
from mvit.parent.tracking.store import ANSWER_TIMEOUT_S, TrackingError, connect, database_of, reason, within
from mvit.rundir.frozen import read_run
from mvit.rundir.objectives import with_best
from mvit.rundir.paths import RunDir
from mvit.rundir.result import read_result
from mvit.rundir.state import Status

if TYPE_CHECKING:
    from mlflow.entities import Run as StoredRun

FILES = frozenset(("run.json", "result.json"))
"""What a table is made from."""
STATUS: Mapping[str, Status] = {"FINISHED": "FINISHED", "FAILED": "FAILED", "RUNNING": "RUNNING"}
PAGE = 1000
AT_ONCE = 8


def fetched(uri: str, *, experiment: str, room: Path) -> list[Record]:
    """A record of each run of the experiment, the oldest first; files that are not on this machine go into `room`.

    Raises `RunDirError` where the store does not answer, or has no such experiment.
    """
    database = database_of(uri)
    if database and not database.exists():  # connecting would make it
        raise RunDirError(f"there is no store {database}")
    try:
        stored = within(ANSWER_TIMEOUT_S, lambda: list(_stored(uri, experiment)), uri)
    except TrackingError as error:
        raise RunDirError(f"MLflow: {error}") from error
    return list(_records(stored, uri, room))


def _records(stored: Sequence[StoredRun], uri: str, room: Path) -> Iterator[Record]:
    sweeps = {str(run.info.run_id): run for run in stored if run.data.tags.get("mvit.kind") == "sweep"}
    runs = [run for run in stored if run.info.run_id not in sweeps]

    def above(run: StoredRun) -> StoredRun | None:
        return sweeps.get(run.data.tags.get("mlflow.parentRunId", ""))

    runs.sort(key=lambda run: (above(run) or run).info.start_time or 0)  # the trials of a sweep one after the other
    with ThreadPoolExecutor(AT_ONCE) as pool:
        folders = pool.map(lambda run: _files(run, uri, room), runs)
        for run, folder in zip(runs, folders, strict=True):
            sweep = above(run)
            yield _record(run, folder, _sweep(sweep) if sweep else None)


def _stored(uri: str, experiment: str) -> Iterator[StoredRun]:
    """The runs of the experiment that mvit has made."""
    client = connect(uri)
    place = client.get_experiment_by_name(experiment)
    if place is None:
        raise TrackingError(f"there is no experiment {experiment!r} there")
    token = None
    while True:
        page = client.search_runs(
            [str(place.experiment_id)], max_results=PAGE, order_by=["attributes.start_time ASC"], page_token=token
        )
        yield from (run for run in page if {FOLDER_ID, "mvit.kind"} & run.data.tags.keys())
        token = page.token
        if not token:
            return


def _sweep(run: StoredRun) -> SweepRecord:
    name = str(run.info.run_name or "")
    return SweepRecord(run.data.tags["mvit.sweep"], name.partition(" ")[2], _status(run), _started(run))


def _files(run: StoredRun, uri: str, room: Path) -> RunDir:
    """The folder of a run's artifacts; what a server has of them is fetched, as far as it was sent."""
    from mlflow.exceptions import MlflowException
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
    from mlflow.utils.file_utils import local_file_uri_to_path

    place = str(run.info.artifact_uri)
    if urlsplit(place).scheme in ("", "file"):
        return RunDir(Path(local_file_uri_to_path(place)))
    folder = room / str(run.info.run_id)
    folder.mkdir()
    if run.info.status == "FINISHED":
        repository = get_artifact_repository(place, tracking_uri=uri)
        try:
            sent = {file.path for file in repository.list_artifacts()}
            for name in sent & FILES:
                repository.download_artifacts(name, str(folder))
        except (MlflowException, OSError) as error:
            console.complain([f"{run.info.run_name}: its result could not be fetched: {reason(error, uri)}"])
    return RunDir(folder)


def _record(stored: StoredRun, folder: RunDir, sweep: SweepRecord | None) -> Record:
    run = row = None
    metrics: dict[str, float] = dict(stored.data.metrics)
    with suppress(RunDirError):
        run = read_run(folder)
    status = _status(stored)
    if run and status == "FINISHED" and (result := read_result(folder)):
        metrics, row = with_best({**metrics, **result.metrics}), result_row(run, result)
    tags, has_failed = stored.data.tags, status in ("FAILED", "KILLED")  # of an earlier attempt, they stay
    label = str(stored.info.run_name or "").partition(" ")[2]
    parts = tags.get(FOLDER_ID, "").split("-")
    params: dict[str, Value] = {key: _value(text) for key, text in stored.data.params.items()}
    params["model"] = params.get("model.name")
    return Record(
        folder,
        status,
        id=f"{parts[0]}-{parts[-1]}" if sweep else parts[-1],
        name=label if sweep else str(params.get("name") or label),
        started=_started(stored),
        sweep=sweep,
        forked_from=tags.get("mvit.forked_from", ""),
        run=run,
        failure=f"{tags['error.kind']}: {tags.get('error', '')}" if has_failed and "error.kind" in tags else "",
        metrics=metrics,
        row=row,
        params=params,
        is_whole=False,
    )


def _status(run: StoredRun) -> Status:
    """MLflow's word, but that it calls a pause killed."""
    if run.info.status == "KILLED" and run.data.tags.get("pruned") == "true":
        return "PAUSED"
    return STATUS.get(str(run.info.status), "KILLED")


def _started(run: StoredRun) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(int(run.info.start_time or 0) / 1000))


def _value(text: str) -> Value:
    """A parameter as what it was, where a filter compares numbers."""
    for kind in (int, float):
        with suppress(ValueError):
            return kind(text)
    return {"True": True, "False": False, "None": None}.get(text, text)
