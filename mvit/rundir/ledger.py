"""ledger.jsonl: the truth of a sweep. First what was asked for, then a line per event, appended by the sweep's parent.

Each line reaches the disk whole, in one write, before the parent goes on. A torn one, as a kill or a full disk leaves
it, costs that line.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter, ValidationError

from mvit.config import Frozen, Strings
from mvit.files import append_lines, nonblocking
from mvit.rundir.ending import EndStatus
from mvit.rundir.paths import RunDir
from mvit.sweep_config import SweepConfig


class _Event(Frozen):
    time: float = Field(default_factory=time.time)
    """Seconds since 1970."""


class SweepRequest(_Event):
    """The first line: what a person typed. Another one follows where `resume` asked for more."""

    event: Literal["requested"] = "requested"
    argv: Strings
    overrides: Strings
    """What all trials have, and the axes."""
    sweep: SweepConfig
    config_dirs: Strings = ()
    """Folders of configuration that were named beside conf/."""
    slots: Strings
    """Each as `python -m mvit run --slot` takes it; empty for one that is everything."""


class TrialFrozen(_Event):
    """A trial has its folder."""

    event: Literal["frozen"] = "frozen"
    trial: int
    folder: str
    overrides: Strings
    """As a person would type them for this run alone."""
    config: str = ""
    """A hash of its configuration."""


class TrialStarted(_Event):
    """A process executes the trial."""

    event: Literal["started"] = "started"
    trial: int
    slot: int
    until_epoch: int | None = None
    """Where it is to be compared with others; None for its end."""


class TrialPaused(_Event):
    """The trial has come to a rung, and its process is gone."""

    event: Literal["paused"] = "paused"
    trial: int
    epoch: int
    values: dict[str, float]
    """Its objectives, and the loss that breaks ties."""


class TrialPromoted(_Event):
    """The trial goes on after a rung."""

    event: Literal["promoted"] = "promoted"
    trial: int
    after_epoch: int


class TrialEnded(_Event):
    """Its process is gone."""

    event: Literal["ended"] = "ended"
    trial: int
    status: EndStatus
    kind: str | None = None
    """The class of its failure."""
    values: dict[str, float] = Field(default_factory=dict[str, float])
    """Its objectives."""


class TrialPruned(_Event):
    """The sweep is over, and the trial stays paused."""

    event: Literal["pruned"] = "pruned"
    trial: int


class SearchExhausted(_Event):
    """No other trial can be drawn: all that there is has been tried."""

    event: Literal["exhausted"] = "exhausted"


Event = (
    SweepRequest | TrialFrozen | TrialStarted | TrialPaused | TrialPromoted | TrialEnded | TrialPruned | SearchExhausted
)
_EVENT: TypeAdapter[Event] = TypeAdapter(Annotated[Event, Field(discriminator="event")])


class Ledger:
    """Appends to the ledger of a sweep."""

    def __init__(self, folder: Path) -> None:
        self.path = RunDir(folder).ledger

    def append(self, *events: Event) -> None:
        """A line for each event, or none of them; raises `OSError`."""
        append_lines(self.path, b"".join(_EVENT.dump_json(event) + b"\n" for event in events))


def recorded_request(folder: Path) -> SweepRequest | None:
    """What the sweep was asked for, the last time; None where that line is torn."""
    return next((event for event in reversed(list(read_events(folder))) if isinstance(event, SweepRequest)), None)


def read_events(folder: Path) -> Iterator[Event]:
    """The events in their order, without lines that are torn or of another version; none where there is no ledger."""
    with suppress(OSError), open(RunDir(folder).ledger, "rb", opener=nonblocking) as file:
        for line in file:
            with suppress(ValidationError):
                yield _EVENT.validate_json(line)
