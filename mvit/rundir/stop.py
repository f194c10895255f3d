"""stop.json and stop_at.json: who wants the workers to stop, and when; rank 0 answers with the step they stop after."""

from __future__ import annotations

from contextlib import suppress
from typing import Literal

from mvit.config import Frozen
from mvit.files import read_json_bytes, write_json
from mvit.rundir.paths import RunDir

CURRENT_EPOCH = 0
"""In place of an epoch's number: the one that the workers are in."""


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


class WantedStop(Frozen):
    """stop.json."""

    reason: StopReason
    after_epoch: int | None = None
    """The epoch after whose evaluation to stop, or `CURRENT_EPOCH`; None for the current step."""


class StopAt(Frozen):
    """Rank 0's answer."""

    step: int
    evaluates: bool = False
    """Whether an evaluation that is due at that step comes first."""


def write_stop(folder: RunDir, reason: StopReason, *, after_epoch: int | None = None) -> None:
    write_json(folder.stop, WantedStop(reason=reason, after_epoch=after_epoch).model_dump(mode="json"))


def read_stop(folder: RunDir) -> WantedStop | None:
    """What is wanted; None where nobody wants the workers to stop."""
    with suppress(OSError, ValueError):
        return WantedStop.model_validate_json(read_json_bytes(folder.stop))
    return None


def write_stop_at(folder: RunDir, step: int, *, evaluates: bool = False) -> None:
    write_json(folder.stop_at, StopAt(step=step, evaluates=evaluates).model_dump(mode="json"))


def read_stop_at(folder: RunDir) -> StopAt | None:
    """The step that all workers stop after; None before rank 0 has answered."""
    with suppress(OSError, ValueError):
        return StopAt.model_validate_json(read_json_bytes(folder.stop_at))
    return None
