"""Who goes on after a rung, and in which order: no trial is run here."""

import numpy as np
import pytest

from mvit.parent.sweep.pruning import Pruning, rungs_of
from mvit.parent.sweep.ranking import measures, pareto_front, ranked
from mvit.sweep_config import HalvingPruner, MedianPruner, NoPruner

HALVING = HalvingPruner(kind="halving", first_rung=1, factor=3, finalists=1)
MEDIAN = MedianPruner(kind="median", first_rung=2, every_epochs=3, min_trials=3)
ACCURACY = ("best/val_acc1",)
TWO = ("val/acc1", "params")


def acc(value):
    return {"best/val_acc1": float(value)}


@pytest.mark.parametrize(
    ("pruner", "epochs", "rungs"),
    [
        (HALVING, 9, [1, 3]),
        (HALVING, 10, [1, 3, 9]),
        (HALVING, 1, []),
        (MEDIAN, 9, [2, 5, 8]),
        (MEDIAN, 2, []),
        (NoPruner(kind="none"), 9, []),
    ],
)
def test_rungs_come_before_the_last_epoch(pruner, epochs, rungs):
    assert list(rungs_of(pruner, epochs=epochs)) == rungs


def test_halving_promotes_the_best_third_as_they_come_and_late_ones_after_all():
    pruning, paused = Pruning(HALVING, epochs=9, objectives=ACCURACY), set()
    promoted = []
    for trial, value in enumerate([50, 60, 40, 30, 55, 70]):
        assert pruning.until(trial) == 1
        pruning.reach(trial, 1, acc(value))
        paused.add(trial)
        if (best := pruning.promoted(among=paused)) is not None:
            promoted.append((trial, best))
            pruning.go_on(best)
            paused.remove(best)
            assert pruning.until(best) == 3
    assert promoted == [(2, 1), (5, 5)]  # of three the best one; of six the two best, one of which has gone on


def test_a_higher_rung_comes_first_and_the_last_one_leads_to_the_end():
    pruning = Pruning(HALVING, epochs=9, objectives=ACCURACY)
    for trial in range(9):
        pruning.reach(trial, 1, acc(trial))
    for trial in (8, 7, 6):
        assert pruning.promoted(among=range(9)) == trial
        pruning.go_on(trial)
    assert pruning.promoted(among=range(9)) is None
    for trial in (6, 7, 8):
        pruning.reach(trial, 3, acc(trial))
    pruning.reach(9, 1, acc(99))
    assert pruning.promoted(among=range(10)) == 8
    pruning.go_on(8)
    assert pruning.until(8) is None
    assert pruning.promoted(among=range(10)) == 9


def test_what_has_ended_goes_on_no_more():
    pruning = Pruning(HALVING, epochs=9, objectives=ACCURACY)
    for trial in range(3):
        pruning.reach(trial, 1, acc(trial))
    pruning.end(2)
    assert pruning.promoted(among=range(3)) is None
    assert pruning.promoted(among=range(3), as_finalist=True) == 1


def test_two_trials_are_too_few_to_promote_one_but_as_a_last_resort():
    pruning = Pruning(HALVING, epochs=9, objectives=ACCURACY)
    for trial in (0, 1):
        pruning.reach(trial, 1, acc(trial))
    assert pruning.promoted(among={0, 1}) is None
    assert pruning.promoted(among={0, 1}, as_finalist=True) == 1


def test_the_median_lets_all_go_on_until_enough_have_come():
    pruning, paused, gone = Pruning(MEDIAN, epochs=9, objectives=ACCURACY), set(), []
    for trial, value in enumerate([50, 40, 60, 30, 55]):
        pruning.reach(trial, 2, acc(value))
        paused.add(trial)
        while (best := pruning.promoted(among=paused)) is not None:
            pruning.go_on(best)
            paused.remove(best)
            gone.append(best)
    assert gone == [0, 1, 2, 4]
    assert paused == {3}


@pytest.mark.parametrize("seed", range(5))
def test_synchronous_halving_is_what_it_comes_to_when_all_have_come(seed):
    """27 trials, 9 and 3 go on, and they are the best ones."""
    values = np.random.default_rng(seed).permutation(27)
    pruning = Pruning(HALVING, epochs=9, objectives=ACCURACY)
    for rung, epoch in enumerate((1, 3)):
        there = np.argsort(-values)[: 27 // 3**rung]
        for trial in there:
            pruning.reach(int(trial), epoch, acc(values[trial]))
        went = []
        while (best := pruning.promoted(among=set(map(int, there)))) is not None:
            pruning.go_on(best)
            went.append(best)
        assert went == [int(trial) for trial in np.argsort(-values)[: 9 // 3**rung]]


def test_of_equal_trials_the_one_with_the_lower_loss_is_first():
    values = {0: acc(98), 1: {**acc(98), "val/loss": 0.4}, 2: {**acc(98), "val/loss": 0.1}, 3: acc(99)}
    known = {trial: found for trial, found in values.items() if trial}
    assert ranked(known, ACCURACY) == [3, 2, 1]
    assert measures(ACCURACY) == ("best/val_acc1", "val/loss")
    assert measures(("val/loss",)) == ("val/loss",)
    pruning = Pruning(HALVING, epochs=9, objectives=ACCURACY)
    for trial, found in known.items():
        pruning.reach(trial, 1, {**found, "val/loss": found.get("val/loss", 0.9)})
    pruning.go_on(3)
    assert pruning.promoted(among={1, 2}, as_finalist=True) == 2


def test_several_objectives_are_ranked_front_by_front():
    values = {
        0: {"val/acc1": 90.0, "params": 1.0},
        1: {"val/acc1": 95.0, "params": 2.0},
        2: {"val/acc1": 89.0, "params": 1.5},  # behind 0
        3: {"val/acc1": 99.0, "params": 9.0},
        4: {"val/acc1": 94.0, "params": 3.0},  # behind 1
        5: {"val/acc1": 80.0},  # one is missing
    }
    order = ranked(values, TWO)
    assert set(order[:3]) == {0, 1, 3}
    assert set(order[3:]) == {2, 4}
    assert order[2] == 1  # the ends of a front are the loneliest
    del values[5]
    assert sorted(pareto_front(values, TWO)) == [0, 1, 3]


def test_a_known_front_is_found_with_half_of_the_epochs():
    """ZDT1 (Zitzler et al., 2000) in two variables; a rung shows its trials with noise that shrinks."""
    random = np.random.default_rng(3)
    points = np.array([(x, g) for x in np.linspace(0, 1, 9) for g in (0.0, 0.3, 0.9)])
    f1, g = points[:, 0], 1 + 9 * points[:, 1]
    f2 = g * (1 - np.sqrt(f1 / g))
    objectives = ("val/loss", "params")
    pruning, paused, epochs, finished = Pruning(HALVING, epochs=9, objectives=objectives), set(), 0, set()

    def run(trial, begins):
        nonlocal epochs
        until = pruning.until(trial)
        epochs += (until or 9) - begins
        if until is None:
            finished.add(trial)
            return pruning.end(trial)
        noisy = f2[trial] + random.normal(0, 0.3 / until)
        pruning.reach(trial, until, {"val/loss": float(noisy), "params": float(f1[trial])})
        return paused.add(trial)

    waiting = list(random.permutation(27))
    while True:
        if (trial := pruning.promoted(among=paused)) is not None:
            begins = pruning.highest(trial)
            pruning.go_on(trial)
            paused.remove(trial)
            run(trial, begins)
        elif waiting:
            run(int(waiting.pop()), 0)
        else:
            break
    true_front = {trial for trial in range(27) if points[trial, 1] == 0}
    values = {int(trial): {"val/loss": f2[trial], "params": f1[trial]} for trial in finished}
    found = set(pareto_front(values, objectives))
    print(f"{epochs} of {27 * 9} epochs, {len(finished)} finished; front {sorted(found)} of {sorted(true_front)}")
    assert epochs <= 27 * 9 / 2
    assert found <= true_front
    assert len(found) >= len(true_front) / 2
