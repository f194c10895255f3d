"""Stopping after a step that all workers agree on, since each step needs all of them."""

from contextlib import suppress

from mvit.rundir.paths import RunDir
from mvit.rundir.stop import read_stop_at, write_stop_at

IN_FLIGHT = 2
"""Steps that the host may be ahead of the device."""


class Stopped(Exception):
    """The run was asked to stop; the checkpoint of the last step is written."""


class StopAgreement:
    """Whether to stop after a step.

    The parent writes stop.json; rank 0 answers with a step that no worker has started: another one is at most one step
    ahead of rank 0's device, and its host IN_FLIGHT more.
    """

    def __init__(self, folder: RunDir, *, rank: int, world_size: int) -> None:
        self.folder, self.rank = folder, rank
        self.ahead = IN_FLIGHT + 2 if world_size > 1 else 0
        self.step: int | None = None
        """The step to stop after; None while nobody asked."""

    def is_due(self, step: int) -> bool:
        """Called by every worker after each step."""
        if self.step is None:
            if self.rank == 0 and self.folder.stop.exists():
                with suppress(OSError):  # a full disk: nobody else would learn of it
                    write_stop_at(self.folder, step + self.ahead)
                    self.step = step + self.ahead
            elif self.rank > 0:
                self.step = read_stop_at(self.folder)
                assert self.step is None or self.step >= step, f"asked to stop at {self.step}, already at {step}"
        return self.step == step
