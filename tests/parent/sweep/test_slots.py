"""The slots of a sweep: what each trial may use, and requests that do not fit."""

from dataclasses import replace

import pytest

from mvit.errors import ConfigError
from mvit.parent.slot import Slot
from mvit.parent.sweep import slots
from mvit.parent.sweep.slots import Slots, slots_again, slots_of
from mvit.rundir.ledger import SweepRequest
from tests.conftest import COMPOSER
from tests.parent.test_plan import HOST


@pytest.fixture
def machine(monkeypatch):
    """A machine of four cores and eight cards."""
    monkeypatch.setattr(slots, "cores_of_this_process", lambda: (0, 1, 2, 3))
    return replace(HOST, cpu_count=4, ascend_cards=8)


def sweep_of(value):
    return COMPOSER.sweep([f"sweep.slots={value}"])


@pytest.mark.parametrize(
    ("value", "overrides", "texts"),
    [
        ("1", ["topology=cpu"], [""]),
        ("1", ["topology=ascend_2x8"], [""]),
        ("2", ["topology=cpu"], ["cores=0,1", "cores=2,3"]),
        ("3", ["topology=cpu"], ["cores=0", "cores=1", "cores=2"]),
        ("[[3],[1]]", ["topology=cpu"], ["cores=3", "cores=1"]),
        ("8", ["topology=ascend_8"], [f"cards={card}" for card in range(8)]),
        ("[[0,1],[6,7]]", ["topology=ascend_1"], ["cards=0,1", "cards=6,7"]),
    ],
)
def test_slots_are_equal_shares_or_those_that_were_named(machine, configured, value, overrides, texts):
    made = slots_of(sweep_of(value), [configured(*overrides)], machine)
    assert made.texts() == tuple(texts)
    again = slots_again(SweepRequest(argv=(), overrides=(), sweep=sweep_of(value), slots=made.texts()))
    assert (again.shares, again.texts()) == (made.shares, made.texts())


@pytest.mark.parametrize(
    ("value", "overrides", "line"),
    [
        ("5", ["topology=cpu"], "5 is more than the 4 cores here; use at most 4"),
        ("[[0],[9]]", ["topology=cpu"], "[[0], [9]] has core 9, which is not here; use some of cores 0,1,2,3"),
        ("[[0],[0]]", ["topology=cpu"], "[[0], [0]] names a core twice; give each slot its own"),
        ("[[0],[1,2]]", ["topology=cpu"], "[[0], [1, 2]] has slots of different sizes, on which numbers would depend"),
        ("[[0],[8]]", ["topology=ascend_1"], "[[0], [8]] has card 8, which is not here"),
        ("4", ["topology=ascend_8"], "4 does not fit a trial of 8 workers, which takes 8 slots; use at least 8"),
        ("8", ["topology=ascend_2x8"], "8 is for trials on one machine; use sweep.slots=1"),
    ],
)
def test_slots_that_do_not_fit_are_refused_in_one_line(machine, configured, value, overrides, line):
    with pytest.raises(ConfigError) as refused:
        slots_of(sweep_of(value), [configured(*overrides)], machine)
    assert str(refused.value).startswith(f"sweep.slots: {line}")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("value", ["0", "-1", "x", "null", "[0]", "[[]]", "[[0,-1]]", "[]"])
def test_what_is_no_slots_is_refused_in_one_line(value):
    with pytest.raises(ConfigError) as refused:
        sweep_of(value)
    assert str(refused.value).startswith("sweep.slots")
    assert "\n" not in str(refused.value)


def test_a_trial_takes_a_slot_for_each_of_its_workers(machine):
    four = Slots([(0,), (1,), (2,), (3,)], device="cards")
    assert four.take(2) == (0, 1)
    assert four.text((0, 1)) == "cards=0,1"
    assert four.take(3) is None
    assert four.take(1) == (2,)
    four.give_back((0, 1))
    assert four.take(3) == (0, 1, 3)
    assert four.example(Slot(), workers=2) == Slot(cards=(0, 1))


def test_the_only_slot_is_for_any_trial(machine):
    one = Slots([()], device="cores")
    assert one.take(8) == (0,)
    assert one.take(1) is None
    assert one.example(Slot(port=20000), workers=8) == Slot(port=20000)


def test_a_trial_sees_as_many_cores_as_its_slots_have(machine):
    two = Slots([(0, 1), (2, 3)], device="cores")
    assert [two.host(machine, workers=workers).cpu_count for workers in (1, 2)] == [2, 4]
