"""faults.jsonl: on which machine an attempt failed, a line for each, for who chooses the machines of the next one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

from pydantic import ValidationError

from mvit.config import FailureKind, Frozen
from mvit.files import append_lines
from mvit.rundir.paths import RunDir


class Fault(Frozen):
    """A line of faults.jsonl."""

    time: float
    attempt: int
    kind: FailureKind
    machine: str


def record_fault(folder: RunDir, fault: Fault) -> None:
    """Append a line; on a full disk, nothing."""
    with suppress(OSError):
        append_lines(folder.faults, fault.model_dump_json().encode() + b"\n")


def read_faults(folder: RunDir) -> Iterator[Fault]:
    """The faults in their order, without lines that are torn."""
    with suppress(OSError), folder.faults.open("rb") as file:
        for line in file:
            with suppress(ValidationError):
                yield Fault.model_validate_json(line)
