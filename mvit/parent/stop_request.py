"""A request to stop an execution, made by its caller from any thread or signal handler."""

from __future__ import annotations

from mvit.rundir.stop import StopReason


class StopRequest:
    """Made once, the run stops in order, after a checkpoint of the current step; made again, it stops at once.

    Takes no lock: a signal handler may make it while another call is being answered.
    """

    def __init__(self) -> None:
        self._reasons: list[StopReason] = []

    def signal(self, number: int) -> None:
        """A signal asks for the end."""
        self._reasons.append(StopReason(kind="signal", signal=number))

    def because(self, reason: StopReason) -> None:
        """Another machine's request, for its reason."""
        self._reasons.append(reason)

    def pause(self) -> None:
        """A scheduler takes the slot, and means to go on later."""
        self._reasons.append(StopReason(kind="pause"))

    def limit(self) -> None:
        """A time limit is reached."""
        self._reasons.append(StopReason(kind="limit"))

    @property
    def reason(self) -> StopReason | None:
        """The first reason; None while nobody asked."""
        return self._reasons[0] if self._reasons else None

    @property
    def is_urgent(self) -> bool:
        """Whether it was made more than once."""
        return len(self._reasons) > 1

    @property
    def times(self) -> int:
        """How often it was made."""
        return len(self._reasons)

    def __bool__(self) -> bool:
        return bool(self._reasons)
