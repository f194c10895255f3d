"""The run folder: its names, its atomic writes, its journal.

runs/<name>/<time>-<id>/
    run.json            configuration and plan, hashed; written once by the parent
    provenance.json     what code, versions and host made the run; code.patch beside it
    metrics.jsonl       the journal, a line per entry, written by rank 0
    status/<rank>.json  stage, step, heartbeat and error of each process
    logs/attempt-<n>/   a file per process
    checkpoints/        see `train/checkpoint.py`
    confusion.json      class by class counts of the best evaluation
    result.json         final and best numbers, written last
    tracking.json       where the run is mirrored
    stop.json, stop_at.json   between parent and workers, while a run is stopped
    launcher.json       the process that looks after the run
    error.json          the first cause of a failure
    end.json            how the run ended, and whether its mirror knows; written by the parent
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import secrets
import threading
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from mvit.config import RunConfig
from mvit.plan import LaunchPlan

SCHEMA = 3
LARGEST_JSON = 64 << 20
"""Bytes of a file that is read as a whole; the confusion matrix of 1000 classes has 13 million."""


class RunDirError(Exception):
    """A run folder that cannot be made or must not be trusted; one line."""


@dataclass(frozen=True)
class RunDir:
    """Where the files of one run are."""

    path: Path

    @property
    def run(self) -> Path:
        return self.path / "run.json"

    @property
    def provenance(self) -> Path:
        return self.path / "provenance.json"

    @property
    def patch(self) -> Path:
        return self.path / "code.patch"

    @property
    def journal(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def status(self) -> Path:
        return self.path / "status"

    @property
    def logs(self) -> Path:
        return self.path / "logs"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def confusion(self) -> Path:
        return self.path / "confusion.json"

    @property
    def result(self) -> Path:
        return self.path / "result.json"

    @property
    def stop(self) -> Path:
        """The parent's wish that the workers write a checkpoint and end."""
        return self.path / "stop.json"

    @property
    def stop_at(self) -> Path:
        """Rank 0's answer: the step after which all of them do."""
        return self.path / "stop_at.json"

    @property
    def launcher(self) -> Path:
        return self.path / "launcher.json"

    @property
    def error(self) -> Path:
        return self.path / "error.json"

    @property
    def end(self) -> Path:
        return self.path / "end.json"

    def attempt_logs(self, attempt: int) -> Path:
        return self.logs / f"attempt-{attempt}"

    @property
    def tracking(self) -> Path:
        return self.path / "tracking.json"


def stamp() -> str:
    """`<time>-<id>`: sorts by time; the random part keeps two runs of one second apart."""
    return f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"


def create(path: Path) -> RunDir:
    """Make a new run folder; an existing one is never reused."""
    try:
        path.mkdir(parents=True, exist_ok=False)
        for part in ("status", "logs", "checkpoints"):
            (path / part).mkdir()
    except OSError as error:
        raise RunDirError(f"cannot make the run folder {path}: {error.strerror}") from error
    return RunDir(path)


@contextmanager
def must_be_written(path: Path) -> Generator[None]:
    """What a run cannot begin without: where the disk refuses, `RunDirError` says so."""
    try:
        yield
    except OSError as error:
        raise RunDirError(f"{path} cannot be written: {error.strerror}") from error


def write_json(path: Path, content: Any) -> None:
    """Write atomically: a reader sees the whole old file or the whole new one, also after a power cut."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    try:
        with temporary.open("x", encoding="utf-8") as file:
            json.dump(content, file, indent=1, allow_nan=False)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        fsync_folder(path.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def fsync_folder(folder: Path) -> None:
    """Make renames in the folder last."""
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def file_digest(path: Path) -> str:
    """sha256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def read_json(path: Path) -> Any:
    """What a file holds; raises `OSError`, and `ValueError` for one that is torn, nested too deep or too large."""
    with open(path, "rb", opener=_at_once) as file:
        data = file.read(LARGEST_JSON + 1)
    if len(data) > LARGEST_JSON:
        raise ValueError(f"{path} has more than {LARGEST_JSON >> 20} MiB")
    try:
        return json.loads(data)
    except RecursionError as error:
        raise ValueError(f"{path} is nested too deep") from error


def known(path: Path) -> dict[str, Any] | None:
    """What the file says; None for one that is missing, torn or no mapping."""
    with suppress(OSError, ValueError):
        content = read_json(path)
        return cast(dict[str, Any], content) if isinstance(content, dict) else None
    return None


def _at_once(path: str, flags: int) -> int:
    """Opens a pipe as an empty file, where a launcher would wait for ever for somebody who writes to it."""
    return os.open(path, flags | os.O_NONBLOCK)


def sealed(content: dict[str, Any]) -> dict[str, Any]:
    """With a hash over all of it, which `read_sealed` checks."""
    bare = {key: value for key, value in content.items() if key != "digest"}
    return {**bare, "digest": _digest(bare)}


def read_sealed(path: Path) -> dict[str, Any]:
    """What `sealed` was written there; raises as `read_json`, and `ValueError` where a byte of it has changed."""
    content = read_json(path)
    if not isinstance(content, dict) or sealed(content := cast(dict[str, Any], content)) != content:
        raise ValueError(f"{path} is damaged: it is not what was written")
    return content


def checkpoint_file(path: Path) -> Path | None:
    """The file of a checkpoint: itself, or the best of a run folder, if it has one."""
    if not path.is_dir():
        return path
    best = path / "checkpoints" / "best.json"
    return best.with_name(f"{read_json(best)['file']}.safetensors") if best.exists() else None


def write_run(folder: RunDir, config: RunConfig, plan: LaunchPlan) -> None:
    """Freeze what the workers shall do."""
    content = {"schema": SCHEMA, "config": config.model_dump(mode="json"), "plan": plan.model_dump(mode="json")}
    write_json(folder.run, {**content, "sha256": _digest(content)})


def read_run(folder: RunDir) -> tuple[RunConfig, LaunchPlan]:
    """What `write_run` froze; raises `RunDirError` for a folder that is torn, changed or of another version."""
    try:
        content = read_json(folder.run)
        digest = content.pop("sha256")
        schema = content["schema"]
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise RunDirError(f"{folder.path} is no run folder: run.json is missing or torn") from error
    if schema != SCHEMA:
        raise RunDirError(f"{folder.run} has schema {schema}, this mvit reads {SCHEMA}; use the commit that made it")
    if digest != _digest(content):
        raise RunDirError(f"{folder.run} was changed after the run was made (sha256 differs); start a new run instead")
    try:
        config = RunConfig.model_validate_json(json.dumps(content["config"]))
        return config, LaunchPlan.model_validate_json(json.dumps(content["plan"]))
    except (KeyError, ValueError) as error:  # whole and unchanged, so written by another version
        raise RunDirError(f"{folder.run} holds what this mvit does not know; use the commit that made it") from error


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


class Journal:
    """Appends entries to metrics.jsonl; each line reaches the file whole, in one write.

    A resumed run computes some steps a second time, with the same results: metrics that stand there are not written
    again. On a full disk, entries wait in memory for the next one.
    """

    def __init__(self, path: Path) -> None:
        self._seen = _mend(path)
        self._file = path.open("ab", buffering=0)
        self._waiting: list[bytes] = []
        self._lock = threading.Lock()  # checkpoints are reported from a thread of their own

    def metrics(self, metrics: dict[str, float], *, step: int, epoch: int) -> None:
        key = (step, *sorted(metrics))
        if key not in self._seen:
            self._seen.add(key)
            self._append({"time": time.time(), "step": step, "epoch": epoch, "metrics": metrics})

    def event(self, event: str, **fields: Any) -> None:
        self._append({"time": time.time(), "event": event, **fields})

    def close(self) -> None:
        """Raises `OSError` when something could not be written."""
        with self._lock:
            self._flush()
        self._file.close()

    def _append(self, entry: dict[str, Any]) -> None:
        with self._lock, suppress(OSError):
            self._waiting.append(json.dumps(entry, allow_nan=False).encode() + b"\n")
            self._flush()

    def _flush(self) -> None:
        while self._waiting:
            written = self._file.write(self._waiting[0])
            if written < len(self._waiting[0]):  # the disk took a part: the rest follows it
                self._waiting[0] = self._waiting[0][written:]
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            del self._waiting[0]


def _mend(path: Path) -> set[tuple[int | str, ...]]:
    """Cut off a torn last line, as a kill leaves it; step and names of the metrics that stand there."""
    if not path.exists():
        return set()
    data = path.read_bytes()
    whole = data[: data.rfind(b"\n") + 1]
    if len(whole) < len(data):
        os.truncate(path, len(whole))
    seen: set[tuple[int | str, ...]] = set()
    for line in whole.splitlines():
        with suppress(ValueError, KeyError, TypeError):
            entry = _entry(line)
            if "metrics" in entry:
                seen.add((entry["step"], *sorted(entry["metrics"])))
    return seen


def _entry(line: bytes) -> dict[str, Any]:
    """An entry of the journal; raises `ValueError` for what is none."""
    try:
        entry = json.loads(line)
    except RecursionError as error:
        raise ValueError("nested too deep") from error
    if not isinstance(entry, dict) or not isinstance(cast(dict[str, Any], entry).get("metrics", {}), dict):
        raise ValueError("no entry")
    return cast(dict[str, Any], entry)


class JournalReader:
    """Reads what was appended since the last call; a torn last line waits for its rest, another is left out."""

    def __init__(self, path: Path, *, offset: int = 0) -> None:
        self._path = path
        self.offset = offset
        self.torn = 0

    def entries(self) -> Iterator[dict[str, Any]]:
        try:
            with open(self._path, "rb", opener=_at_once) as file:
                file.seek(self.offset)
                data = file.read()
        except (FileNotFoundError, IsADirectoryError):
            return
        whole, newline, _ = data.rpartition(b"\n")
        self.offset += len(whole) + len(newline)
        for line in whole.splitlines():
            try:
                entry = _entry(line)
            except ValueError:  # torn by a full disk: what follows it is whole
                self.torn += 1
            else:
                yield entry
