"""How a run ended: its outcome, the first cause of a failure, end.json and error.json."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter

from mvit.config import FailureKind, Frozen
from mvit.files import file_digest, read_json_bytes, write_json
from mvit.rundir.launcher import read_launcher
from mvit.rundir.paths import RunDir

EndStatus = Literal["FINISHED", "PAUSED", "FAILED", "KILLED"]

RETRYABLE: frozenset[FailureKind] = frozenset(("comm", "port", "killed", "hang"))
"""Classes worth a retry, which `train.max_restarts` is for; running out of memory would only happen again."""


@dataclass(frozen=True)
class Failure:
    """The first cause of a failure."""

    kind: FailureKind
    rank: int | None
    stage: str
    """A `Stage`, or `scheduler` or `launcher`."""
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

    def to_json(self) -> dict[str, Any]:
        """As error.json holds it."""
        return {**asdict(self), "log": str(self.log) if self.log else None}


@dataclass(frozen=True)
class Outcome:
    """What an execution of a run came to."""

    status: EndStatus
    exit_code: int
    failure: Failure | None = None


class Ending(Frozen):
    """end.json."""

    status: EndStatus
    exit_code: int | None
    error: Failure | None
    time: float
    mirrored: bool | None
    """Whether MLflow knows; None before it was told."""
    journal: str | None = None
    """The sha256 of the journal at that time."""
    left: float | None = None
    """When the launcher was done with the run, MLflow included; None where nobody was told of its end."""


_FAILURE: TypeAdapter[Failure] = TypeAdapter(Failure)


def read_failure(folder: RunDir) -> Failure | None:
    """error.json; None where it is missing or torn."""
    with suppress(OSError, ValueError):
        return _FAILURE.validate_json(read_json_bytes(folder.error))
    return None


def write_failure(folder: RunDir, failure: Failure) -> None:
    write_json(folder.error, failure.to_json())


def read_ending(folder: RunDir) -> Ending | None:
    """end.json, else the end that was recorded on a full disk; None for a run that has none."""
    return _read_end_file(folder) or _read_in_place(folder)


def has_end_file(folder: RunDir) -> bool:
    """Whether end.json says how the run ended; False for an end that was recorded on a full disk."""
    return _read_end_file(folder) is not None


def record_end(folder: RunDir, status: EndStatus, *, exit_code: int | None, failure: Failure | None = None) -> None:
    """Write end.json, before the mirror is told."""
    journal = None
    with suppress(OSError):  # a run that has not begun has none
        journal = file_digest(folder.journal)
    ending = Ending(status=status, exit_code=exit_code, error=failure, time=time.time(), mirrored=None, journal=journal)
    try:
        write_json(folder.end, ending.model_dump(mode="json"))
    except OSError:  # a full disk
        _record_in_place(folder, ending)


def record_mirrored(folder: RunDir, *, mirrored: bool, left: float | None = None) -> None:
    """Note in end.json whether MLflow knows the end, and when the launcher of the run left it."""
    if ending := _read_end_file(folder):
        news = {"mirrored": mirrored, **({} if left is None else {"left": left})}
        with suppress(OSError):
            write_json(folder.end, ending.model_copy(update=news).model_dump(mode="json"))


def _read_end_file(folder: RunDir) -> Ending | None:
    with suppress(OSError, ValueError):
        return Ending.model_validate_json(read_json_bytes(folder.end))
    return None


def _read_in_place(folder: RunDir) -> Ending | None:
    launcher = read_launcher(folder)
    with suppress(ValueError):
        return Ending.model_validate_json(json.dumps(launcher.end)) if launcher and launcher.end else None
    return None


def _record_in_place(folder: RunDir, ending: Ending) -> None:
    """Write over the room that launcher.json reserves for an end: a full disk still takes what needs no more of it."""
    launcher = read_launcher(folder)
    if launcher is None:
        return
    size = folder.launcher.stat().st_size
    for kept in (ending, ending.model_copy(update={"error": None})):  # its message may be too long
        content = launcher.model_copy(update={"room": "", "end": kept.model_dump(mode="json")})
        text = content.model_dump_json().encode()
        if len(text) <= size:
            with suppress(OSError), folder.launcher.open("r+b", buffering=0) as file:
                file.write(text.ljust(size))
                os.fsync(file.fileno())
            return
