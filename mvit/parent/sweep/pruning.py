"""Pruning with promotion: which trials go on after a rung, and which of those that are paused come to it later.

Asynchronous successive halving (Li et al., 2020), which promotes: a trial that is paused at a rung is resumed, to the
bit, once it is among the best of those that have come so far.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from mvit.parent.sweep.ranking import Values, ranked
from mvit.sweep_config import HalvingPruner, MedianPruner, NoPruner, Objective, Pruner


class Pruning:
    """The rungs of a sweep, and who has reached each. Epochs count from 1."""

    def __init__(self, pruner: Pruner, *, epochs: int, objectives: Sequence[Objective]) -> None:
        self.pruner, self.objectives = pruner, objectives
        self.rungs = tuple(rungs_of(pruner, epochs=epochs))
        self._reached: list[dict[int, Values]] = [{} for _ in self.rungs]
        self._gone_on: list[set[int]] = [set() for _ in self.rungs]
        self._ended: set[int] = set()

    def until(self, trial: int) -> int | None:
        """The epoch that the trial is to run to; None for its end."""
        return next((epoch for epoch, there in zip(self.rungs, self._reached, strict=True) if trial not in there), None)

    def reach(self, trial: int, epoch: int, values: Values) -> None:
        """The trial has come to a rung."""
        self._reached[self.rungs.index(epoch)][trial] = values

    def highest(self, trial: int) -> int:
        """The epoch of the highest rung that the trial has reached."""
        return self.rungs[self._rung_of(trial)]

    def go_on(self, trial: int) -> None:
        """The trial leaves the highest rung that it has reached."""
        self._gone_on[self._rung_of(trial)].add(trial)

    def end(self, trial: int) -> None:
        """The trial has come to its end, or failed: it goes on no more."""
        self._ended.add(trial)

    def promoted(self, *, among: Collection[int], as_finalist: bool = False) -> int | None:
        """The trial to go on with, of those that are paused: the best one of the highest rung that has one.

        Finalists are the best there are, whatever share of their rung went on.
        """
        for rung in reversed(range(len(self.rungs))):
            order = ranked(self._reached[rung], self.objectives)
            for trial in order if as_finalist else order[: self._quota(len(order))]:
                if trial in among and self._may_go_on(trial, rung):
                    return trial
        return None

    def _rung_of(self, trial: int) -> int:
        return max(rung for rung, there in enumerate(self._reached) if trial in there)

    def _may_go_on(self, trial: int, rung: int) -> bool:
        return trial not in self._gone_on[rung] and trial not in self._ended and self._rung_of(trial) == rung

    @property
    def finalists(self) -> int:
        """How many trials come to their end at least."""
        return self.pruner.finalists if isinstance(self.pruner, HalvingPruner) else 1

    def _quota(self, count: int) -> int:
        """How many of so many trials on a rung may go on."""
        match self.pruner:
            case HalvingPruner(factor=factor):
                return count // factor
            case MedianPruner(min_trials=least):
                return count if count < least else -(-count // 2)
            case NoPruner():
                return count


def rungs_of(pruner: Pruner, *, epochs: int) -> Iterator[int]:
    """The epochs after which a run of so many is compared with others."""
    match pruner:
        case NoPruner():
            return
        case HalvingPruner(first_rung=rung, factor=factor):
            while rung < epochs:
                yield rung
                rung *= factor
        case MedianPruner(first_rung=rung, every_epochs=every):
            yield from range(rung, epochs, every)
