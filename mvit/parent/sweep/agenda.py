"""The agenda of a sweep: which trial is to be run next, and how far."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from mvit.parent.sweep.pruning import Pruning
from mvit.parent.sweep.ranking import Values
from mvit.parent.sweep.search import State
from mvit.parent.sweep.source import Source
from mvit.parent.sweep.trials import Trial
from mvit.rundir.ending import Outcome
from mvit.rundir.ledger import Event, TrialPaused, TrialPromoted
from mvit.rundir.state import Status


@dataclass(frozen=True)
class Turn:
    """A trial that is to be executed, to its end or to an epoch."""

    trial: Trial
    until_epoch: int | None


class Agenda:
    """Trials that wait first, then one that is drawn, then those that are promoted.

    All come to the first rung before one of them leaves it, so that the best of all go on, and as many as the pruner
    says: on the curves of 27 trials, promoting first took up to twice the epochs, in unlucky orders, and found no
    better one. No slot is idle meanwhile: the last trials of a rung run beside the first promoted ones. Once none is
    left that may go on, the best of those that are paused do, until enough have come to their end: the finalists.
    """

    def __init__(self, trials: Iterable[Trial], pruning: Pruning, *, source: Source | None = None) -> None:
        self._waiting = deque(trials)
        self._pruning = pruning
        self._source, self._is_dry = source, source is None
        self._paused: dict[int, Trial] = {}
        self._running: dict[int, int | None] = {}
        """The epoch that each is run to; None for its end."""
        self._finished: set[int] = set()

    @property
    def rungs(self) -> tuple[int, ...]:
        """The epochs after which trials are compared."""
        return self._pruning.rungs

    def recall(self, trial: Trial, reached: Sequence[tuple[int, Values]], *, status: Status) -> None:
        """A trial of a sweep that is resumed, with the rungs that it has reached; one that is to be run is RUNNING."""
        for epoch, values in reached:
            self._pruning.reach(trial.number, epoch, values)
        if status == "PAUSED" and reached:
            self._paused[trial.number] = trial
        elif reached:
            self._pruning.go_on(trial.number)
        if status == "PAUSED":
            return
        if status in ("FINISHED", "FAILED"):
            self._pruning.end(trial.number)
        if status == "FINISHED":
            self._finished.add(trial.number)

    def next(self) -> tuple[Turn, list[Event]] | None:
        """The next turn, and what the ledger is to tell of it; None while, or because, there is none."""
        told: list[Event] = []
        trial = self._waiting.popleft() if self._waiting else None
        if trial is None and self._source and not self._is_dry:
            trial = self._source.draw()
            self._is_dry = trial is None
        if trial is None:
            trial = self._promoted(told)
        if trial is None and self._lacks_finalists():
            trial = self._promoted(told, as_finalist=True)
        if trial is None:
            return None
        until = self._running[trial.number] = self._pruning.until(trial.number)
        return Turn(trial, until), told

    def ended(self, turn: Turn, outcome: Outcome, values: Values) -> Event | None:
        """A turn is over, with these values at its end; what the ledger is to tell of a pause at a rung."""
        number, epoch = turn.trial.number, turn.until_epoch
        self._running.pop(number, None)
        is_paused = outcome.status == "PAUSED" and epoch is not None and bool(values)
        if self._source:
            state: State = "paused" if is_paused else "finished" if outcome.status == "FINISHED" else "failed"
            self._source.tell(turn.trial, state, values, epoch=epoch or 0)
        if is_paused:
            assert epoch is not None
            self._pruning.reach(number, epoch, values)
            self._paused[number] = turn.trial
            return TrialPaused(trial=number, epoch=epoch, values=dict(values))
        if outcome.status in ("FINISHED", "FAILED"):
            self._pruning.end(number)
        if outcome.status == "FINISHED":
            self._finished.add(number)
        return None

    @property
    def paused(self) -> tuple[Trial, ...]:
        """The trials that wait on a rung."""
        return tuple(self._paused.values())

    def _lacks_finalists(self) -> bool:
        """Whether more trials are to come to their end, and none that runs to a rung may still be one of them."""
        is_decided = all(until is None for until in self._running.values())
        return is_decided and len(self._finished) + len(self._running) < self._pruning.finalists

    def _promoted(self, told: list[Event], *, as_finalist: bool = False) -> Trial | None:
        number = self._pruning.promoted(among=self._paused, as_finalist=as_finalist)
        if number is None:
            return None
        told.append(TrialPromoted(trial=number, after_epoch=self._pruning.highest(number)))
        self._pruning.go_on(number)
        return self._paused.pop(number)
