"""Why a sweep ends before its last trial: failures that will not stop, or a limit."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from mvit.config import FailureKind
from mvit.rundir.ending import Failure, Outcome

HITS_ALL: frozenset[FailureKind] = frozenset(("config", "disk"))
"""Classes of failures that every other trial would meet as well."""


@dataclass
class Ends:
    """Watches how trials end. `reason` says why no other one is to start; with `is_stop`, those that run stop too."""

    fail_fast: bool = False
    max_failures_in_a_row: int = 5
    max_hours: float | None = None
    reason: str | None = None
    is_stop: bool = False
    exit_code: int = 1
    """Of the sweep."""
    _in_a_row: int = 0
    _began: float = field(default_factory=time.monotonic)

    def take(self, outcome: Outcome) -> None:
        """A trial has ended."""
        failure = outcome.failure
        if failure is None:
            self._in_a_row = 0
            return
        self._in_a_row += 1
        if self.fail_fast:
            self._end(f"a trial failed ({_of(failure)}) and sweep.fail_fast is set", is_stop=True)
        elif failure.kind in HITS_ALL:
            self._end(f"a trial failed as all others would ({_of(failure)})")
        elif self._in_a_row >= self.max_failures_in_a_row:
            self._end(f"{self._in_a_row} trials in a row failed, the last one with {_of(failure)}")

    def look_at_the_clock(self) -> None:
        """End the sweep once its time is over."""
        if self.max_hours is not None and time.monotonic() - self._began > 3600 * self.max_hours:
            # EX_TEMPFAIL: it can go on later
            self._end(f"the time limit is reached (sweep.max_hours={self.max_hours:g})", is_stop=True, exit_code=75)

    def wind_down(self) -> None:
        """Someone wants no other trial to start, and those that run to stop after their epoch."""
        self._end("it was asked to stop after the current epochs", exit_code=75)

    def no_trial_can_be_made(self, reason: str) -> None:
        """A trial that is due cannot be written."""
        self._end(f"no other trial can be made: {reason}")

    def _end(self, reason: str, *, is_stop: bool = False, exit_code: int = 1) -> None:
        self.is_stop |= is_stop
        if self.reason is None:
            self.reason, self.exit_code = reason, exit_code


def _of(failure: Failure) -> str:
    return f"{failure.kind}: {failure.message}"
