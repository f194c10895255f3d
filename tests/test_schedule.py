"""mvit.schedule: points computed by hand, and the curves of MindCV and cvnets."""

import math
from typing import Any, get_args

import numpy as np
import pytest
from pydantic import TypeAdapter

from mvit.config import AdamWConfig, Schedule, kind_of
from mvit.schedule import learning_rate, scaled_lr

PEAK, EPOCHS, STEPS = 2.0, 4, 10
WARMUP = {"warmup": 1.0, "warmup_unit": "epochs", "warmup_from": 0.0}
COSINE = {"kind": "cosine", **WARMUP, "final_lr": 0.0, "begins": "after_warmup", "changes_every": "step"}
KINDS: dict[str, dict[str, Any]] = {
    "cosine": COSINE,
    "constant": {"kind": "constant", **WARMUP},
    "step": {"kind": "step", **WARMUP, "milestones": [2.0, 3.0], "factor": 0.1},
    "polynomial": {"kind": "polynomial", **WARMUP, "final_lr": 0.5, "power": 2.0},
    "one_cycle": {"kind": "one_cycle", "rising": 0.3, "initial_lr": 0.1, "final_lr": 0.01},
}


def rates(kind, *, peak=PEAK, epochs=EPOCHS, steps_per_epoch=STEPS, **changes) -> list[float]:
    schedule = TypeAdapter(Schedule).validate_python({**KINDS[kind], **changes})
    total = epochs * steps_per_epoch
    return [
        learning_rate(schedule, peak=peak, step=step, steps_per_epoch=steps_per_epoch, total_steps=total)
        for step in range(total)
    ]


def test_every_schedule_is_tried_here():
    assert {kind_of(model) for model in get_args(get_args(Schedule)[0])} == set(KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_rates_rise_to_the_peak_once_and_then_never_rise(kind):
    found = np.array(rates(kind))
    top = int(found.argmax())
    assert found[top] == pytest.approx(PEAK)
    assert top == (11 if kind == "one_cycle" else 10)
    assert (np.diff(found[: top + 1]) > 0).all()
    assert (np.diff(found[top:]) <= 0).all()
    assert (found >= 0).all()


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "one_cycle"])
@pytest.mark.parametrize(("length", "unit"), [(1.5, "epochs"), (15.0, "steps")])
def test_warm_up_counts_epochs_or_steps_from_its_own_first_rate(kind, length, unit):
    found = rates(kind, warmup=length, warmup_unit=unit, warmup_from=0.5)
    assert found[:15] == pytest.approx([0.5 + 1.5 * step / 15 for step in range(15)])
    assert found[15] == PEAK


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "one_cycle"])
def test_without_warm_up_the_first_step_has_the_peak(kind):
    assert rates(kind, warmup=0.0)[0] == PEAK


def test_a_run_that_is_all_warm_up_stays_below_the_peak():
    found = rates("cosine", warmup=4.0)
    assert found == pytest.approx([2.0 * step / 40 for step in range(40)])


def test_the_cosine_passes_the_middle_and_ends_a_step_before_its_final_rate():
    found = rates("cosine", warmup=0.0, final_lr=0.5)
    assert found[20] == pytest.approx(1.25)
    assert found[10] == pytest.approx(1.25 + 0.75 * math.sqrt(0.5))
    assert found[-1] == pytest.approx(0.5 + 0.75 * (1 + math.cos(math.pi * 39 / 40)))


def test_a_cosine_by_epoch_has_the_rate_of_the_first_step_of_each_epoch():
    by_step, by_epoch = (rates("cosine", changes_every=every) for every in ("step", "epoch"))
    for epoch in range(1, EPOCHS):
        assert by_epoch[10 * epoch : 10 * epoch + 10] == [by_step[10 * epoch]] * 10
    # A warm-up that ends within an epoch leaves the rest of that epoch at the peak.
    assert rates("cosine", changes_every="epoch", warmup=1.5)[15:20] == [PEAK] * 5


def test_a_cosine_from_the_start_lies_under_the_warm_up():
    with_warmup, without = (rates("cosine", begins="at_start", warmup=length) for length in (1.0, 0.0))
    assert with_warmup[10:] == without[10:]
    assert with_warmup[10] < PEAK


def test_a_constant_schedule_stays_at_the_peak():
    assert rates("constant")[10:] == [PEAK] * 30


def test_a_step_schedule_drops_at_each_milestone():
    found = rates("step", milestones=[2.1, 3.0])
    assert found[10:21] == [2.0] * 11
    assert found[21:30] == pytest.approx([0.2] * 9)
    assert found[30:] == pytest.approx([0.02] * 10)


def test_a_polynomial_falls_with_its_power():
    found = rates("polynomial")
    assert found[10] == PEAK
    assert found[25] == pytest.approx(0.5 + 1.5 * 0.25)
    assert found[-1] == pytest.approx(0.5 + 1.5 / 30**2)
    assert rates("polynomial", power=1.0)[25] == pytest.approx(1.25)


@pytest.mark.parametrize("rising", [0.3, 0.25, 0.999])
def test_one_cycle_is_the_two_phase_curve_of_pytorch(rising):
    total, (low, high, end) = 40, (0.1, PEAK, 0.01)
    top, last = rising * total - 1, total - 1  # the ends of its phases, as OneCycleLR has them
    expected = []
    for step in range(total):
        first = step <= top
        begin, finish, share = (low, high, step / top) if first else (high, end, (step - top) / (last - top))
        expected.append(finish + (begin - finish) / 2 * (1 + math.cos(math.pi * share)))
    np.testing.assert_allclose(rates("one_cycle", rising=rising), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_of_one_step_has_a_rate(kind):
    (found,) = rates(kind, epochs=1, steps_per_epoch=1)
    assert 0 <= found <= PEAK


def test_the_curve_is_that_of_mindcv():
    peak, final, epochs, warmup, steps = 2e-3, 2e-6, 450, 40, 7
    i = np.arange(epochs * steps)
    rising = peak * (i / steps) / warmup  # linear_refined_lr from 0
    t_cur = (i - warmup * steps) / steps
    falling = final + (peak - final) / 2 * (1 + np.cos(np.pi * t_cur / (epochs - warmup)))  # cosine_decay_refined_lr
    expected = np.where(i < warmup * steps, rising, falling)
    found = rates("cosine", peak=peak, epochs=epochs, steps_per_epoch=steps, warmup=40.0, final_lr=final)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)


def test_the_curve_is_that_of_cvnets():
    peak, final, first, epochs, warmup, steps = 2e-3, 2e-4, 2e-4, 300, 3000, 1251
    i = np.arange(epochs * steps)
    rising = first + (peak - first) * i / warmup
    falling = final + (peak - final) / 2 * (1 + np.cos(np.pi * (i // steps) / epochs))
    expected = np.where(i < warmup, rising, falling)
    changes = {"warmup": 3000.0, "warmup_unit": "steps", "warmup_from": first, "final_lr": final}
    changes |= {"begins": "at_start", "changes_every": "epoch"}
    found = rates("cosine", peak=peak, epochs=epochs, steps_per_epoch=steps, **changes)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("stated_for", "expected"), [(None, 2e-3), (512, 2e-3), (1024, 1e-3), (64, 1.6e-2)])
def test_the_peak_is_scaled_from_the_batch_it_is_stated_for(stated_for, expected):
    config = AdamWConfig(
        kind="adamw",
        lr=2e-3,
        lr_batch_size=stated_for,
        weight_decay=0.01,
        decay_excludes="nothing",
        layer_decay=1.0,
        beta1=0.9,
        beta2=0.999,
        eps=1e-8,
    )
    assert scaled_lr(config, global_batch_size=512) == pytest.approx(expected)
