"""Stopping after a step that all workers agree on, since each step needs all of them."""

from contextlib import suppress

from mvit.rundir.paths import RunDir
from mvit.rundir.stop import read_stop_at, write_stop_at

IN_FLIGHT = 2
"""Steps that a host may be ahead of its device."""


class Stopped(Exception):
    """A requested stop; the checkpoint of the last step is written."""


class StopAgreement:
    """Whether to stop after a step.

    The parent writes stop.json; rank 0 answers with a step that no worker has started: no device is more than one step
    ahead of rank 0's, and no host more than IN_FLIGHT steps ahead of its device.
    """

    def __init__(self, folder: RunDir, *, rank: int, world_size: int) -> None:
        self.folder, self.rank = folder, rank
        self.ahead = IN_FLIGHT + 2 if world_size > 1 else 0
        self.step: int | None = None
        """The step to stop after; None until a stop is requested."""

    def is_due(self, step: int) -> bool:
        """Called by every worker after each step."""
        if self.step is None:
            if self.rank == 0 and self.folder.stop.exists():
                with suppress(OSError):  # a full disk: the other workers would never see it
                    write_stop_at(self.folder, step + self.ahead)
                    self.step = step + self.ahead
            elif self.rank > 0:
                self.step = read_stop_at(self.folder)
                assert self.step is None or self.step >= step, f"already past {self.step}: step {step}"
        return self.step == step
