"""Stopping after a step that all workers agree on, since each step needs all of them."""

from collections.abc import Callable
from contextlib import suppress

from mvit.rundir.paths import RunDir
from mvit.rundir.stop import CURRENT_EPOCH, WantedStop, read_stop, read_stop_at, write_stop_at

IN_FLIGHT = 2
"""Steps that a host may be ahead of its device."""


class Stopped(Exception):
    """A requested stop; the checkpoint of the last step is written."""


class StopAgreement:
    """Whether to stop after a step.

    stop.json says that someone wants it; rank 0 answers with a step that no worker has started: no device is more than
    one step ahead of rank 0's, and no host more than IN_FLIGHT steps ahead of its device. What is wanted after an epoch
    before any worker starts is read by all of them.
    """

    def __init__(
        self,
        folder: RunDir,
        *,
        rank: int,
        world_size: int,
        step: int,
        steps_per_epoch: int,
        end_of: Callable[[int], int],
    ) -> None:
        """`step` is the last one that was done, and `end_of` gives the last one of an epoch."""
        self.folder, self.rank = folder, rank
        self.ahead = IN_FLIGHT + 2 if world_size > 1 else 0
        self._steps_per_epoch, self._end_of = steps_per_epoch, end_of
        self.evaluates = False
        """Whether an evaluation that is due at that step comes first."""
        self.step: int | None = None
        """The step to stop after; None until a stop is requested."""
        self._answered: WantedStop | None = None
        self._seen: tuple[int, int] | None = None
        wanted = read_stop(folder)
        if wanted and wanted.after_epoch is not None:
            end = self._end_after(step) if wanted.after_epoch == CURRENT_EPOCH else end_of(wanted.after_epoch)
            self.step, self.evaluates, self._answered = end, True, wanted
            if rank == 0 and world_size > 1:  # another worker may have looked before
                with suppress(OSError):
                    write_stop_at(folder, end, evaluates=True)

    def is_due(self, step: int) -> bool:
        """Called by every worker after each step."""
        if self.rank == 0:
            self._answer(step)
        elif (answer := read_stop_at(self.folder)) is not None and answer.step != self.step:
            self.step, self.evaluates = answer.step, answer.evaluates
            assert self.step >= step, f"already past {self.step}: step {step}"
        return self.step == step

    def is_over(self, step: int, *, evaluated: bool) -> bool:
        """Whether nothing is left to do before the stop, as for a run that is resumed there."""
        return self.step is not None and (step > self.step or (step == self.step and evaluated))

    def _answer(self, step: int) -> None:
        wanted = self._news()
        if wanted is None:
            return
        earliest = step + self.ahead
        if wanted.after_epoch is None:
            end, evaluates = earliest, False
        else:
            end, evaluates = self._end_of(wanted.after_epoch), True
            if end < earliest:
                end = self._end_after(earliest - 1)
        if self.step is not None and self.step <= end:  # they stop before that, but not all may know
            end, evaluates = self.step, self.evaluates
        with suppress(OSError):  # a full disk: the other workers would never see it
            write_stop_at(self.folder, end, evaluates=evaluates)
            self.step, self.evaluates, self._answered = end, evaluates, wanted

    def _end_after(self, step: int) -> int:
        """The last step of the epoch that the next step is in."""
        return self._end_of(1 + step // self._steps_per_epoch)

    def _news(self) -> WantedStop | None:
        """What is wanted and not yet answered."""
        try:
            found = self.folder.stop.stat()
        except OSError:
            return None
        written = (found.st_ino, found.st_mtime_ns)
        if written == self._seen:
            return None
        wanted = read_stop(self.folder)
        if wanted is None or wanted == self._answered:
            self._seen = written
            return None
        return wanted
