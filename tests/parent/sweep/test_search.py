"""What a search draws: within its space, from its seed, and better than chance."""

import statistics

import pytest

from mvit.parent.request.axes import bare, read_space
from mvit.parent.sweep.search import Known, Search
from mvit.parent.sweep.source import corners
from mvit.sweep_config import SearchSweep
from tests.conftest import COMPOSER

TYPED = ("optimizer.lr=tag(log,interval(1e-4,1e-1))", "train.label_smoothing=interval(0,0.5)", "model=xx_small,small")
SAMPLERS = ["tpe", "random", "quasi_random"]


def search(*settings, typed=TYPED, objectives=("best/val_acc1",), applies=None):
    space = read_space(typed, COMPOSER)
    every = frozenset(bare(axis.key) for axis in space.axes)
    sweep = COMPOSER.sweep(["sweep=search", *settings])
    assert isinstance(sweep, SearchSweep)
    return Search(space, sweep, objectives=objectives, applies=applies or (lambda _: every))


def accuracy(drawn):
    """Best at lr=0.01, no smoothing, small."""
    from math import log10

    away = abs(log10(float(drawn["optimizer.lr"])) + 2) + float(drawn["train.label_smoothing"])
    return {"best/val_acc1": 90 - 10 * away + (5 if drawn["model"] == "small" else 0)}


def drawn_by(made, count, *, tell=True):
    found = []
    for number in range(count):
        drawn = made.draw(number)
        assert drawn is not None
        found.append(drawn)
        made.know(number, Known(drawn, "finished", accuracy(drawn)) if tell else Known(drawn, "running", {}))
    return found


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_draws_are_within_the_space_and_those_of_the_seed(sampler):
    draws = [drawn_by(search(f"sweep.sampler={sampler}", f"sweep.seed={seed}"), 8) for seed in (1, 1, 2)]
    assert draws[0] == draws[1] != draws[2]
    assert len({tuple(drawn.items()) for drawn in draws[0]}) == 8
    for drawn in draws[0]:
        assert 1e-4 <= float(drawn["optimizer.lr"]) <= 1e-1
        assert 0 <= float(drawn["train.label_smoothing"]) <= 0.5
        assert drawn["model"] in ("xx_small", "small")


def test_a_draw_depends_on_what_is_known_and_not_on_who_draws():
    one = search()
    earlier = drawn_by(one, 12)
    other = search()
    for number, drawn in enumerate(earlier):
        other.know(number, Known(drawn, "finished", accuracy(drawn)))
    assert one.draw(12) == other.draw(12)
    for number, drawn in enumerate(earlier):
        other.know(number, Known(drawn, "finished", {"best/val_acc1": -accuracy(drawn)["best/val_acc1"]}))
    assert one.draw(12) != other.draw(12)


@pytest.mark.parametrize("seed", range(10))
def test_the_first_draws_of_tpe_try_every_choice(seed):
    typed = ("augment=none,mixup_cutmix", "optimizer.lr=tag(log,interval(1e-4,1e-1))", "model.dropout=interval(0,0.2)")
    made = search(f"sweep.seed={seed}", "sweep.max_trials=20", typed=typed)
    first = [(made.draw(number) or {}).get("augment") for number in range(4)]
    assert set(first) == {"none", "mixup_cutmix"}


def test_tpe_beats_random_draws():
    best = {}
    for sampler in ("tpe", "random"):
        runs = [drawn_by(search(f"sweep.sampler={sampler}", f"sweep.seed={seed}"), 25) for seed in range(4)]
        best[sampler] = statistics.fmean(max(accuracy(one)["best/val_acc1"] for one in run[15:]) for run in runs)
    print(f"best of the last 10 of 25 draws, mean of 4 seeds: {best}")
    assert best["tpe"] > best["random"]


def test_trials_that_run_are_not_drawn_again():
    made = search()
    drawn_by(made, 6)
    together = []
    for number in range(6, 9):
        drawn = made.draw(number)
        assert drawn is not None
        made.know(number, Known(drawn, "running", {}))
        together.append(drawn["optimizer.lr"])
    assert len(set(together)) == 3


def test_a_grid_is_every_combination_once():
    made = search("sweep.sampler=grid", typed=("model=xx_small,small", "seed=1,2"))
    assert [made.draw(number) for number in range(5)] == [
        {"model": "xx_small", "seed": "1"},
        {"model": "xx_small", "seed": "2"},
        {"model": "small", "seed": "1"},
        {"model": "small", "seed": "2"},
        None,
    ]


def test_a_grid_leaves_out_keys_without_a_place_and_what_is_known():
    def applies(drawn):
        return {"optimizer", "seed"} if drawn["optimizer"] == "adamw" else {"optimizer", "optimizer.momentum", "seed"}

    momenta = ",".join(f"0.{number}" for number in range(10, 40))
    made = search(
        "sweep.sampler=grid",
        typed=("optimizer=adamw,sgd", "seed=1,2", f"optimizer.momentum={momenta}"),
        applies=applies,
    )
    made.know(0, Known({"optimizer": "adamw", "seed": "2"}, "finished", {}))
    cells = []
    while (cell := made.draw(len(cells))) is not None:
        cells.append(cell)
    assert len(cells) == 1 + 2 * 30


@pytest.mark.parametrize("state", ["paused", "failed", "running"])
def test_what_did_not_finish_is_known_as_that(state):
    made = search()
    drawn = drawn_by(made, 4)
    made.know(2, Known(drawn[2], state, {"best/val_acc1": 99.0} if state == "paused" else {}, epoch=3))
    assert made.draw(4)


def test_several_objectives_are_drawn_for():
    made = search("sweep.objectives=[best/val_acc1,params]", objectives=("best/val_acc1", "params"))
    for number in range(12):
        drawn = made.draw(number)
        assert drawn is not None
        made.know(number, Known(drawn, "finished", {**accuracy(drawn), "params": len(drawn["model"])}))
    assert made.draw(12)


def test_a_key_of_an_option_is_drawn_where_that_option_is():
    def applies(drawn):
        return {"optimizer", "optimizer.momentum"} if drawn.get("optimizer") == "sgd" else {"optimizer"}

    typed = ("optimizer=adamw,sgd", "optimizer.momentum=interval(0.8,0.99)")
    made = search(typed=typed, applies=applies)
    found = []
    for number in range(12):
        drawn = made.draw(number)
        assert drawn is not None
        found.append(drawn)
        made.know(number, Known(drawn, "finished", {"best/val_acc1": float(number)}))
    assert {drawn["optimizer"] for drawn in found} == {"adamw", "sgd"}
    assert all(("optimizer.momentum" in drawn) == (drawn["optimizer"] == "sgd") for drawn in found)


def test_the_bounds_of_a_space_have_the_keys_of_each_choice():
    space = read_space(("optimizer=adamw,sgd", "optimizer.momentum=interval(0.8,0.99)", "seed=1"), COMPOSER)
    assert corners(space, COMPOSER) == [
        ["seed=1", "optimizer=adamw"],
        ["seed=1", "optimizer=adamw"],
        ["seed=1", "optimizer=sgd", "optimizer.momentum=0.8"],
        ["seed=1", "optimizer=sgd", "optimizer.momentum=0.99"],
    ]


def test_trials_of_another_sweep_are_a_start_where_they_fit():
    made = search()
    fits = made.known_of(
        ["seed=3", "optimizer.lr=0.01", "train.label_smoothing=0.1", "model=small"], "finished", {"best/val_acc1": 95.0}
    )
    assert fits is not None
    before = made.draw(0)
    made.earlier = [fits] * 6
    assert made.draw(0) != before
    assert made.known_of(["optimizer.lr=5", "model=small"], "finished", {}) is None
    assert made.known_of(["seed=1"], "finished", {}) is None
