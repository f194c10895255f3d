"""A fault that a test injects into one worker, at a stage or after a step; the variable MVIT_FAULT describes it.

    MVIT_FAULT='{"rank": 1, "at": "compile", "action": {"kind": "sleep", "seconds": 3600}, "record": "/tmp/fault"}'

Without the variable nothing is injected. The actions are a closed set: nothing from the environment is executed.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from mvit.config import Frozen
from mvit.rundir.status import Stage

VARIABLE = "MVIT_FAULT"
ERRORS: dict[str, type[Exception]] = {kind.__name__: kind for kind in (ValueError, RuntimeError, MemoryError, OSError)}


class Raise(Frozen):
    """Raise an exception."""

    kind: Literal["raise"] = "raise"
    error: Literal["ValueError", "RuntimeError", "MemoryError", "OSError"]
    message: str = ""


class Sleep(Frozen):
    """Hang."""

    kind: Literal["sleep"] = "sleep"
    seconds: float


class Leave(Frozen):
    """`sys.exit`."""

    kind: Literal["leave"] = "leave"
    code: int


class Disappear(Frozen):
    """`os._exit`: end without reporting anything."""

    kind: Literal["disappear"] = "disappear"
    code: int


class Kill(Frozen):
    """Send a signal to this process; SIGABRT is a crash, SIGSTOP a freeze of all threads."""

    kind: Literal["kill"] = "kill"
    signal: signal.Signals


Action = Annotated[Raise | Sleep | Leave | Disappear | Kill, Field(discriminator="kind")]


class Fault(Frozen):
    """What happens to whom, and when."""

    rank: int
    at: Stage | int
    """On entering a stage, or after a step."""
    action: Action
    record: str
    """A file that the time of the fault is appended to."""

    def strike(self) -> None:
        """Record the time, then act."""
        with Path(self.record).open("a") as file:
            file.write(f"{time.time()}\n")
        match self.action:
            case Raise(error=error, message=message):
                raise ERRORS[error](*([message] if message else []))
            case Sleep(seconds=seconds):
                time.sleep(seconds)
            case Leave(code=code):
                sys.exit(code)
            case Disappear(code=code):
                os._exit(code)
            case Kill(signal=number):
                os.kill(os.getpid(), number)

    def environment(self) -> dict[str, str]:
        """The variable that injects this fault."""
        return {VARIABLE: self.model_dump_json()}


def read_fault(environment: Mapping[str, str], *, rank: int) -> Fault | None:
    """The fault that is meant for a rank; raises `ValueError` for a variable that describes none."""
    if VARIABLE not in environment:
        return None
    fault = Fault.model_validate_json(environment[VARIABLE])
    return fault if fault.rank == rank else None
