"""Stopping at a step that all workers agree on, since each step needs all of them."""

from contextlib import suppress

from mvit.files import read_json, write_json
from mvit.rundir.paths import RunDir

IN_FLIGHT = 2
"""Steps that the host may be ahead of the device."""


class Stopped(Exception):
    """Somebody asked for the end; the checkpoint of the last step is written."""


class Stop:
    """Whether to stop after a step.

    The parent writes stop.json; rank 0 answers with a step that no worker has begun: another one is at most one step
    ahead of rank 0's device, and its host IN_FLIGHT more.
    """

    def __init__(self, folder: RunDir, *, rank: int, world_size: int) -> None:
        self.folder, self.rank = folder, rank
        self.ahead = IN_FLIGHT + 2 if world_size > 1 else 0
        self.at: int | None = None

    def due(self, step: int) -> bool:
        """Asked by every worker after each step."""
        if self.at is None:
            if self.rank == 0 and self.folder.stop.exists():
                with suppress(OSError):  # a full disk: nobody else would hear of it
                    write_json(self.folder.stop_at, {"step": step + self.ahead})
                    self.at = step + self.ahead
            elif self.rank > 0 and self.folder.stop_at.exists():
                self.at = int(read_json(self.folder.stop_at)["step"])
                assert self.at >= step, f"asked to stop at step {self.at}, already at {step}"
        return self.at == step
