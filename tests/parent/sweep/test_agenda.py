"""Which trial is next: no trial is run here."""

from types import SimpleNamespace
from typing import Any, cast

import pytest

from mvit.parent.report.table import Label
from mvit.parent.sweep.agenda import Agenda
from mvit.parent.sweep.pruning import Pruning
from mvit.parent.sweep.trials import Trial
from mvit.rundir.ending import Failure, Outcome
from mvit.sweep_config import HalvingPruner, NoPruner

HALVING = HalvingPruner(kind="halving", first_rung=1, factor=3, finalists=1)
PAUSED, FINISHED = Outcome("PAUSED", 75), Outcome("FINISHED", 0)


def trials(count):
    return [Trial(number, Label((("seed", f"{number}"),)), cast(Any, SimpleNamespace())) for number in range(count)]


@pytest.fixture
def agenda():
    def make(count, *, pruner=HALVING, source=None):
        pruning = Pruning(pruner, epochs=9, objectives=("best/val_acc1",))
        return Agenda(trials(count), pruning, source=cast(Any, source))

    return make


def turn_of(agenda):
    turn, _ = agenda.next()
    return turn


def values(number):
    return {"best/val_acc1": float(number)}


def run_all(agenda):
    """The turns, one at a time; a trial is the better the higher its number."""
    turns = []
    while (found := agenda.next()) is not None:
        turn, _ = found
        turns.append((turn.trial.number, turn.until_epoch))
        agenda.ended(turn, PAUSED if turn.until_epoch else FINISHED, values(turn.trial.number))
    return turns


def test_without_a_pruner_each_trial_is_run_to_its_end_in_order(agenda):
    assert run_all(agenda(3, pruner=NoPruner(kind="none"))) == [(0, None), (1, None), (2, None)]


def test_all_come_to_the_first_rung_before_one_leaves_it(agenda):
    turns = run_all(agenda(9))
    assert turns[:9] == [(number, 1) for number in range(9)]
    assert set(turns[9:]) == {(6, 3), (7, 3), (8, 3), (8, None)}


def test_of_too_few_for_a_promotion_the_best_is_run_to_its_end(agenda):
    assert run_all(agenda(2)) == [(0, 1), (1, 1), (1, 3), (1, None)]


def test_as_many_finalists_as_were_asked_for_come_to_their_end_the_best_first(agenda):
    turns = run_all(agenda(9, pruner=HALVING.model_copy(update={"finalists": 3})))
    assert [number for number, until in turns if until is None] == [8, 7, 6]
    every = run_all(agenda(2, pruner=HALVING.model_copy(update={"finalists": 9})))
    assert {number for number, until in every if until is None} == {0, 1}


def test_finalists_wait_for_a_trial_that_may_still_be_one(agenda):
    waiting = agenda(9, pruner=HALVING.model_copy(update={"finalists": 3}))
    for number in range(9):
        waiting.ended(turn_of(waiting), PAUSED, values(number))
    at_three = [turn_of(waiting) for _ in range(3)]
    assert [turn.until_epoch for turn in at_three] == [3, 3, 3]
    for turn in at_three[:2]:
        waiting.ended(turn, PAUSED, values(turn.trial.number))
    assert waiting.next() is None  # the third may be the best of them
    waiting.ended(at_three[2], PAUSED, values(at_three[2].trial.number))
    finalists = [turn_of(waiting) for _ in range(3)]
    assert [(turn.trial.number, turn.until_epoch) for turn in finalists] == [(8, None), (7, None), (6, None)]
    assert waiting.next() is None


def test_no_finalist_is_chosen_while_a_trial_runs_to_a_rung(agenda):
    waiting = agenda(2)
    first, second = turn_of(waiting), turn_of(waiting)
    waiting.ended(first, PAUSED, values(0))
    assert waiting.next() is None
    waiting.ended(second, Outcome("FAILED", 1, Failure("nan", 0, "step", "nan")), {})
    assert turn_of(waiting).trial.number == 0


def test_a_pause_before_the_rung_is_none_at_it(agenda):
    waiting = agenda(1)
    assert waiting.ended(turn_of(waiting), PAUSED, {}) is None
    assert waiting.paused == ()


def test_what_is_drawn_comes_before_what_is_promoted_and_its_source_hears_of_it(agenda):
    drawn, heard = iter(trials(3)), []
    source = SimpleNamespace(
        draw=lambda: next(drawn, None),
        tell=lambda trial, state, values, *, epoch: heard.append((trial.number, state, epoch)),
    )
    turns = run_all(agenda(0, source=source))
    assert turns == [(0, 1), (1, 1), (2, 1), (2, 3), (2, None)]
    assert heard == [(0, "paused", 1), (1, "paused", 1), (2, "paused", 1), (2, "paused", 3), (2, "finished", 0)]
