"""stop.json and stop_at.json: the parent asks the workers to stop, rank 0 answers with the step they stop after."""

from __future__ import annotations

from contextlib import suppress
from typing import Literal

from mvit.config import Frozen
from mvit.files import read_json_bytes, write_json
from mvit.rundir.paths import RunDir


class StopReason(Frozen):
    """Why a run is to stop: a signal (a person, a system), a pause (a scheduler means to go on), or a time limit."""

    kind: Literal["signal", "pause", "limit"]
    signal: int | None = None

    @property
    def status(self) -> Literal["KILLED", "PAUSED"]:
        """The status of a run that stopped so."""
        return "PAUSED" if self.kind == "pause" else "KILLED"

    @property
    def exit_code(self) -> int:
        """128 + the signal's number, as shells have it; 75 (EX_TEMPFAIL: try again later) for the others."""
        return 75 if self.signal is None else 128 + self.signal

    def __str__(self) -> str:
        return f"signal {self.signal}" if self.kind == "signal" else {"pause": "a pause", "limit": "a limit"}[self.kind]


class StopAt(Frozen):
    """Rank 0's answer."""

    step: int


def write_stop(folder: RunDir, reason: StopReason) -> None:
    write_json(folder.stop, reason.model_dump(mode="json"))


def write_stop_at(folder: RunDir, step: int) -> None:
    write_json(folder.stop_at, StopAt(step=step).model_dump(mode="json"))


def read_stop_at(folder: RunDir) -> int | None:
    """The step that all workers stop after; None before rank 0 has answered."""
    with suppress(OSError, ValueError):
        return StopAt.model_validate_json(read_json_bytes(folder.stop_at)).step
    return None
