"""How a run ended: its outcome, its first cause, end.json."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

from mvit.files import read_mapping, write_json
from mvit.rundir.ownership import read_launcher
from mvit.rundir.paths import RunDir

Kind = Literal[
    "config", "data", "compile", "oom", "nan", "comm", "port", "checkpoint", "disk", "code", "killed", "hang"
]
RETRYABLE: frozenset[Kind] = frozenset(("comm", "port", "killed", "hang"))
"""What `train.max_restarts` is for; want of memory would come back."""


@dataclass(frozen=True)
class Failure:
    """The first cause."""

    kind: Kind
    rank: int | None
    stage: str
    message: str
    where: str | None = None
    log: Path | None = None

    def lines(self) -> Iterator[str]:
        """One block for a person."""
        place = f" at {self.where}" if self.where else ""
        rank = "" if self.rank is None else f"rank {self.rank}, "
        yield f"failed ({rank}{self.stage}, {self.kind}){place}: {self.message}"
        if self.log is not None:
            yield f"log: {self.log}"

    def fields(self) -> dict[str, Any]:
        """As error.json holds it."""
        return {**vars(self), "log": str(self.log) if self.log else None}


def record_end(folder: RunDir, status: str, *, exit_code: int | None, error: Mapping[str, Any] | None) -> None:
    """Say how the run ended, before its mirror is told."""
    content = {"status": status, "exit_code": exit_code, "error": error, "time": time.time(), "mirrored": None}
    try:
        write_json(folder.end, content)
    except OSError:  # a full disk
        _record_in_place(folder, content)


def recorded_in_place(folder: RunDir) -> dict[str, Any] | None:
    """The end that was recorded on a full disk."""
    end = (read_launcher(folder) or {}).get("end")
    if not isinstance(end, dict) or not end.keys() >= {"status", "exit_code", "error"}:
        return None
    return cast(dict[str, Any], end)


def _record_in_place(folder: RunDir, content: dict[str, Any]) -> None:
    """Write over the room that launcher.json has for an end: a full disk still takes what needs no more of it."""
    launcher = read_launcher(folder)
    if launcher is None:
        return
    size = folder.launcher.stat().st_size
    for error in (content["error"], None):  # its message may be too long
        text = json.dumps({**launcher, "room": "", "end": {**content, "error": error}}).encode()
        if len(text) <= size:
            with suppress(OSError), folder.launcher.open("r+b", buffering=0) as file:
                file.write(text.ljust(size))
                os.fsync(file.fileno())
            return


def record_mirrored(folder: RunDir, *, mirrored: bool) -> None:
    """Say whether MLflow knows the end, too."""
    content = read_mapping(folder.end)
    if content:
        with suppress(OSError):
            write_json(folder.end, {**content, "mirrored": mirrored})


@dataclass(frozen=True)
class Outcome:
    """How a run ended."""

    status: Literal["FINISHED", "FAILED", "KILLED"]
    exit_code: int
    failure: Failure | None = None
