"""faults.jsonl: on which machine an attempt failed, a line for each, for who chooses the machines of the next one."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import suppress

from pydantic import ValidationError

from mvit.config import FailureKind, Frozen
from mvit.rundir.paths import RunDir


class Fault(Frozen):
    """A line of faults.jsonl."""

    time: float
    attempt: int
    kind: FailureKind
    machine: str


def machine_name() -> str:
    """This machine as its scheduler calls it, else its host name."""
    return os.environ.get("SLURMD_NODENAME") or socket.gethostname()


def record_fault(folder: RunDir, fault: Fault) -> None:
    """Append a line; on a full disk, nothing."""
    with suppress(OSError), folder.faults.open("ab", buffering=0) as file:
        file.write(fault.model_dump_json().encode() + b"\n")


def read_faults(folder: RunDir) -> Iterator[Fault]:
    """The faults in their order, without lines that are torn."""
    with suppress(OSError), folder.faults.open("rb") as file:
        for line in file:
            with suppress(ValidationError):
                yield Fault.model_validate_json(line)
