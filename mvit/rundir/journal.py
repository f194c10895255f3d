"""metrics.jsonl: a line per entry, appended by rank 0, read by the parent."""

from __future__ import annotations

import errno
import json
import os
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

from mvit.files import nonblocking


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
        key = _key(step, metrics)
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
                seen.add(_key(entry["step"], entry["metrics"]))
    return seen


def _key(step: int, metrics: Iterable[str]) -> tuple[int | str, ...]:
    """What an entry is known by. An evaluation has a speed, or none where it is repeated right after a resume."""
    names = sorted(metrics)
    return (step, *([name for name in names if not name.startswith("perf/")] or names))


def _entry(line: bytes) -> dict[str, Any]:
    """An entry of the journal; raises `ValueError` for what is none."""
    try:
        entry = json.loads(line)
    except RecursionError as error:
        raise ValueError("nested too deep") from error
    if not isinstance(entry, dict) or not isinstance(cast(dict[str, Any], entry).get("metrics", {}), dict):
        raise ValueError("no entry")
    return cast(dict[str, Any], entry)


def series_of(entries: Iterable[dict[str, Any]]) -> dict[str, list[tuple[int, float]]]:
    """Each metric in these entries as its steps and values."""
    series: dict[str, list[tuple[int, float]]] = {}
    for entry in entries:
        for key, value in entry.get("metrics", {}).items():
            series.setdefault(key, []).append((int(entry["step"]), float(value)))
    return series


class JournalReader:
    """Reads what was appended since the last call; a torn last line waits for its rest, another is left out."""

    def __init__(self, path: Path, *, offset: int = 0) -> None:
        self._path = path
        self.offset = offset
        self.torn = 0

    def entries(self) -> Iterator[dict[str, Any]]:
        try:
            with open(self._path, "rb", opener=nonblocking) as file:
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
