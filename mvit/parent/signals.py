"""The signals that ask for an end: raised between runs, turned into a stop request while one is executed."""

from __future__ import annotations

import signal
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import FrameType

from mvit.parent.stop_request import StopRequest

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
"""SIGUSR1 says that a limit is near, SIGUSR2 what SIGINT does: job scripts send them, see `parent/slurm/script.py`."""


class Interrupted(KeyboardInterrupt):
    """A signal asked for the end; not an Exception, which Hydra would take for the failure of one trial."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.exit_code = 128 + number


@contextmanager
def raising() -> Generator[None]:
    """Meanwhile a signal raises `Interrupted`."""

    def handle(number: int, _frame: FrameType | None) -> None:
        raise Interrupted(number)

    with _handled(handle):
        yield


@contextmanager
def stopping() -> Generator[StopRequest]:
    """Meanwhile a signal makes the stop request that is yielded."""
    stop = StopRequest()

    def handle(number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGUSR1:
            stop.limit()
        else:
            stop.signal(signal.SIGINT if number == signal.SIGUSR2 else number)

    with _handled(handle):
        yield stop


@contextmanager
def _handled(handle: Callable[[int, FrameType | None], None]) -> Generator[None]:
    """Install a handler for a while; main thread only."""
    before = {number: signal.getsignal(number) for number in STOPPING}
    # Under nohup, SIGHUP stays ignored.
    handled = [number for number in STOPPING if not (number == signal.SIGHUP and before[number] == signal.SIG_IGN)]
    for number in handled:
        signal.signal(number, handle)
    try:
        yield
    finally:
        for number in handled:
            signal.signal(number, before[number])
