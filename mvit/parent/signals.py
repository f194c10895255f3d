"""The signals that ask for an end: raised between runs, collected while there is one that is to be stopped in order."""

from __future__ import annotations

import signal
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import FrameType

ASK = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stopped(KeyboardInterrupt):
    """An end was asked for; no Exception, which Hydra would take for the failure of one trial."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.exit_code = 128 + number


@contextmanager
def raising() -> Generator[None]:
    """Meanwhile a signal raises `Stopped`."""

    def handle(number: int, _frame: FrameType | None) -> None:
        raise Stopped(number)

    with _handled(handle):
        yield


@contextmanager
def collecting() -> Generator[list[int]]:
    """The signals that came so far."""
    received: list[int] = []
    with _handled(lambda number, _frame: received.append(number)):
        yield received


@contextmanager
def _handled(handle: Callable[[int, FrameType | None], None]) -> Generator[None]:
    """The previous handlers come back at the end."""
    before = {number: signal.getsignal(number) for number in ASK}
    heard = [number for number in ASK if not (number == signal.SIGHUP and before[number] == signal.SIG_IGN)]  # nohup
    for number in heard:
        signal.signal(number, handle)
    try:
        yield
    finally:
        for number in heard:
            signal.signal(number, before[number])
