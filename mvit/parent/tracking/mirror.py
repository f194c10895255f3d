"""One run folder and its MLflow run: what is sent there, how far it is, where it stands.

Everything here raises what MLflow's client raises, and takes the time that the store takes.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from mvit.credentials import redacted
from mvit.errors import RunDirError
from mvit.files import lock
from mvit.parent.provenance import user
from mvit.parent.tracking.model import log_model, logs_model
from mvit.parent.tracking.note import note_of, tags_of_note
from mvit.parent.tracking.store import MlflowStatus, TrackingError, cut
from mvit.rundir.frozen import read_run
from mvit.rundir.journal import JournalReader
from mvit.rundir.paths import RunDir
from mvit.rundir.tracking import TrackingRecord, read_record, write_record

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Run

T = TypeVar("T")

FOLDER_ID = "mvit.folder_id"
"""The tag that finds a run folder's run again where tracking.json is lost: the folder's name."""

# MLflow's limits; it refuses what is over them.
MAX_METRICS, MAX_PARAMS, MAX_TAGS = 1000, 100, 100
MAX_PARAM, MAX_TAG = 6000, 8000


class TornJournal(TrackingError):
    """Lines of the journal that cannot be read, and that no other attempt will."""


@dataclass(frozen=True)
class Target:
    """An experiment of a store."""

    uri: str
    experiment: str
    experiment_id: str


@dataclass(frozen=True)
class Closing:
    """What is sent when a run has ended: its status, and when; its last tags; files of its folder."""

    status: MlflowStatus
    artifacts: tuple[Path, ...]
    tags: dict[str, str]
    time: float


@dataclass(frozen=True)
class UsedDataset:
    """What a run was trained or evaluated on."""

    name: str
    digest: str
    """At most 36 characters."""
    source: str


@dataclass(frozen=True)
class Sent:
    """What a mirror has sent so far: `points` new ones, and `duplicates` that the store had already."""

    points: int = 0
    duplicates: int = 0
    others: int = 0
    """Parameters, tags, artifacts, a status."""

    def __bool__(self) -> bool:
        return bool(self.points or self.others)


class Mirror:
    """One run folder and its open MLflow run. What stands there already is not sent again."""

    def __init__(
        self, client: MlflowClient, folder: RunDir, record: TrackingRecord, *, run: Run, writes_record: bool = True
    ) -> None:
        self.client, self.folder, self.record = client, folder, record
        self.run_id: str = run.info.run_id
        self.status: str = run.info.status
        self.sent = Sent()
        self.torn = 0
        self._params, self._tags = dict(run.data.params), dict(run.data.tags)
        self._has_dataset = bool(run.inputs and run.inputs.dataset_inputs)
        self.is_recorded = writes_record
        # A journal that was lost or cut is read from its beginning: what the store has of it is not doubled.
        self._offset = record.offset if _ends_a_line(folder.journal, record.offset) else 0
        self._closed: set[str] = set()

    def begin(self, *, is_new: bool) -> None:
        """Record the run, which `is_new` or was found."""
        with suppress(OSError):  # a full disk: the run shall be followed all the same, and is found again by its tag
            self._write(self.record)
        self._count(int(is_new))

    def set_params(self, params: Mapping[str, str]) -> None:
        """The ones that are missing: a parameter never changes, and setting it anew is refused."""
        missing = {key: value for key, value in params.items() if key not in self._params}
        log_params(self.client, self.run_id, missing)
        self._params |= params
        self._count(len(missing))

    def set_tags(self, tags: Mapping[str, str], *, replacing: bool = True) -> None:
        """The ones that differ, or without `replacing` those that are missing; a run keeps the name it has."""
        from mlflow.entities import RunTag

        values = {key: cut(value, MAX_TAG) for key, value in tags.items()}
        fixed = self._tags if not replacing else {"mlflow.runName"} & self._tags.keys()
        changed = {k: v for k, v in values.items() if self._tags.get(k) != v and k not in fixed}
        for batch in _batches([RunTag(key, value) for key, value in changed.items()], MAX_TAGS):
            self.client.log_batch(self.run_id, tags=batch, synchronous=True)
        self._tags |= changed
        self._count(len(changed))

    def set_dataset(self, used: UsedDataset) -> None:
        """Name the data as an input of the run, if it has none."""
        from mlflow.entities import Dataset, DatasetInput, InputTag

        if self._has_dataset:
            return
        dataset = Dataset(used.name, used.digest, "local", json.dumps({"uri": used.source}))
        context = InputTag("mlflow.data.context", "training and evaluation")
        self.client.log_inputs(self.run_id, [DatasetInput(dataset, [context])])
        self._has_dataset = True
        self._count(1)

    def reopen(self) -> None:
        """The run goes on."""
        if self.status != "RUNNING":
            self.client.update_run(self.run_id, status="RUNNING")
            self.status = "RUNNING"

    def flush(self, *, deduplicate: bool = False) -> None:
        """Send the journal's new points, then record how far it was read.

        After a crash in between, they are sent again, which adds nothing: MLflow keeps a (key, step, value, timestamp)
        once. With `deduplicate`, the store says beforehand which of them it has.
        """
        from mlflow.entities import Metric

        reader = JournalReader(self.folder.journal, offset=self._offset)
        points: list[Metric] = []
        malformed = 0
        for entry in reader.entries():
            try:
                if "metrics" in entry:
                    at, step = int(entry["time"] * 1000), int(entry["step"])
                    points += [Metric(key, float(value), at, step) for key, value in entry["metrics"].items()]
            except (KeyError, TypeError, ValueError, AttributeError):  # nobody's journal, or bytes that flipped
                malformed += 1
        new = self._missing(points) if deduplicate else points
        for batch in _batches(new, MAX_METRICS):
            self.client.log_batch(self.run_id, metrics=batch, synchronous=True)
        if reader.offset != self.record.offset:
            sent = {"offset": reader.offset, "points": self.record.points + len(points)}
            self._write(self.record.model_copy(update=sent))
            self._offset = reader.offset
        self.torn += reader.torn + malformed
        duplicates = self.sent.duplicates + len(points) - len(new)
        self.sent = replace(self.sent, points=self.sent.points + len(new), duplicates=duplicates)

    def close(self, closing: Closing, *, deduplicate: bool = False) -> None:
        """Send the rest. What fails does not keep the others from being sent; a second call does what is left.

        The status comes before the artifacts, which may take longer than anybody waits.
        """
        failures: list[Exception] = []
        for name, act in self._last_acts(closing, deduplicate=deduplicate):
            if name not in self._closed:
                try:
                    act()
                    self._closed.add(name)
                except Exception as error:  # noqa: BLE001  raised below, after the others had their turn
                    failures.append(error)
        if failures:
            raise failures[0]
        if self.torn:
            raise TornJournal(f"{self.folder.journal.name} has lines that are torn")

    def _last_acts(self, closing: Closing, *, deduplicate: bool) -> Iterator[tuple[str, Callable[[], None]]]:
        yield "journal", lambda: self.flush(deduplicate=deduplicate)
        yield "tags", lambda: self.set_tags(closing.tags)
        yield "note", lambda: self._set_note(closing)
        yield "status", lambda: self._end(closing)
        for path in closing.artifacts:
            yield str(path), lambda path=path: self._log_artifact(path)
        yield "model", lambda: self._log_model(closing)

    def _end(self, closing: Closing) -> None:
        if self.status != closing.status:
            self.client.set_terminated(self.run_id, closing.status, int(closing.time * 1000))
            self.status = closing.status
            self._count(1)

    def _set_note(self, closing: Closing) -> None:
        with suppress(RunDirError):
            note = note_of(read_run(self.folder), closing.status)
            self.set_tags(tags_of_note(note, self._tags))

    def _log_model(self, closing: Closing) -> None:
        with suppress(RunDirError):
            run = read_run(self.folder)
            if closing.status != "FINISHED" or not logs_model(run) or self.record.model_id:
                return
            name, experiment_id = self._tags["mlflow.runName"], self.record.experiment_id
            assert experiment_id
            model_id = log_model(self.client, run, run_id=self.run_id, experiment_id=experiment_id, name=name)
            self._write(self.record.model_copy(update={"model_id": model_id}))
            self._count(1)

    def _log_artifact(self, path: Path) -> None:
        """As it lies in the run folder: its folders hold files of the same name."""
        below = path.parent.relative_to(self.folder.path) if path.is_relative_to(self.folder.path) else Path()
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        name = (below / path.name).as_posix()
        if self.record.artifacts.get(name) == digest:
            return
        place = below.as_posix() if below != Path() else None
        self.client.log_artifact(self.run_id, str(path), place)  # pyright: ignore[reportUnknownMemberType]
        self._write(self.record.model_copy(update={"artifacts": {**self.record.artifacts, name: digest}}))
        self._count(1)

    def _missing(self, points: list[Metric]) -> list[Metric]:
        present = {
            (key, point.step, point.value, point.timestamp)
            for key in {point.key for point in points}
            for point in self.client.get_metric_history(self.run_id, key)
        }
        return [point for point in points if (point.key, point.step, point.value, point.timestamp) not in present]

    def _write(self, record: TrackingRecord) -> None:
        if self.is_recorded:
            write_record(self.folder, record)
        self.record = record

    def _count(self, others: int) -> None:
        self.sent = replace(self.sent, others=self.sent.others + others)


def open_mirror(
    client: MlflowClient, folder: RunDir, *, target: Target, tags: Mapping[str, str], began: float
) -> Mirror:
    """The folder's run in the store, made if need be; `began` is in seconds since 1970.

    It is the one that tracking.json names, else the one that carries the folder's name. A tracking.json that names a
    run elsewhere stays as it is.
    """
    record = read_record(folder)
    if record and record.experiment != target.experiment:
        record = None
    run_id = record.run_in(target.uri) if record else None
    run = _active(client, run_id) if run_id else None
    if run and run.data.tags.get(FOLDER_ID) != folder.path.name:  # the folder is a copy of that run's
        run = None
    if record is None or run is None:
        run = find_run(client, target.experiment_id, folder.path)
        is_new = run is None
        if run is None:
            all_tags = {**tags, FOLDER_ID: folder.path.name}
            name, at = all_tags.get("mlflow.runName"), int(began * 1000)
            run = client.create_run(target.experiment_id, start_time=at, tags=all_tags, run_name=name)
        record = TrackingRecord(
            store=redacted(target.uri),
            experiment=target.experiment,
            experiment_id=target.experiment_id,
            run_id=run.info.run_id,
        )
        mirror = Mirror(client, folder, record, run=run, writes_record=not _is_elsewhere(folder, target))
        mirror.begin(is_new=is_new)
        return mirror
    return Mirror(client, folder, record, run=run)


def find_run(client: MlflowClient, experiment_id: str, folder: Path) -> Run | None:
    """The oldest run of the experiment that carries the folder's name."""
    quote = '"' if "'" in folder.name else "'"
    runs = client.search_runs(
        [experiment_id], f"tags.`{FOLDER_ID}` = {quote}{folder.name}{quote}", order_by=["attributes.start_time ASC"]
    )
    return runs[0] if runs else None


def run_tags(tags: Mapping[str, str], *, parent_run_id: str | None = None) -> dict[str, str]:
    """With what MLflow's fluent interface would have set; its client sets nothing."""
    source = {"mlflow.user": user(), "mlflow.source.name": "launch.py", "mlflow.source.type": "LOCAL"}
    ours = {key: cut(value, MAX_TAG) for key, value in tags.items() if value}
    parent = {"mlflow.parentRunId": parent_run_id} if parent_run_id else {}
    return {**source, **ours, **parent}


@contextmanager
def claimed(folder: RunDir) -> Generator[bool]:
    """False while another process, or thread, mirrors the folder.

    The lock is on run.json, which is never replaced; that of the folder itself is its launcher's (`ownership.py`).
    """
    if not folder.run.exists():
        yield True
        return
    with lock(folder.run, wait=False) as is_ours:
        yield is_ours


def last_sign(folder: RunDir) -> float:
    """When the run last wrote anything, in seconds since 1970."""
    files = [folder.journal, folder.result, *folder.status.glob("[!.]*.json")]
    times: list[float] = []
    for file in files:
        with suppress(OSError):
            times.append(file.stat().st_mtime)
    return max(times, default=time.time())


def _is_elsewhere(folder: RunDir, target: Target) -> bool:
    record = read_record(folder)
    if record is None or record.run_id is None:
        return False
    return record.run_in(target.uri) is None or record.experiment != target.experiment


def _ends_a_line(journal: Path, offset: int) -> bool:
    if offset == 0:
        return True
    with suppress(OSError), journal.open("rb") as file:
        file.seek(offset - 1)
        return file.read(1) == b"\n"
    return False


def _active(client: MlflowClient, run_id: str) -> Run | None:
    """The run; None if there is no such run any more."""
    from mlflow.exceptions import MlflowException

    try:
        run = client.get_run(run_id)
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return None
        raise
    return run if run.info.lifecycle_stage == "active" else None


def log_params(client: MlflowClient, run_id: str, params: Mapping[str, str]) -> None:
    """Set parameters of a run that it does not have yet."""
    from mlflow.entities import Param

    for batch in _batches([Param(key, cut(value, MAX_PARAM)) for key, value in params.items()], MAX_PARAMS):
        client.log_batch(run_id, params=batch, synchronous=True)


def _batches(items: Sequence[T], size: int) -> Iterable[Sequence[T]]:
    return (items[begin : begin + size] for begin in range(0, len(items), size))
