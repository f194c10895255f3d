import math

import pytest

from mvit.config import ConstantSchedule, CosineSchedule
from mvit.schedule import learning_rate


def rates(schedule, *, peak=2.0, epochs=4, steps_per_epoch=10):
    total = epochs * steps_per_epoch
    return [
        learning_rate(schedule, peak=peak, step=step, steps_per_epoch=steps_per_epoch, total_steps=total)
        for step in range(total)
    ]


def test_warm_up_rises_linearly_to_the_peak():
    found = rates(CosineSchedule(kind="cosine", warmup_epochs=1.0, final_lr=0.0))
    assert found[:10] == pytest.approx([2.0 * (step + 1) / 10 for step in range(10)])


def test_the_cosine_ends_at_the_final_rate_and_passes_the_middle():
    found = rates(CosineSchedule(kind="cosine", warmup_epochs=0.0, final_lr=0.5))
    assert found[-1] == pytest.approx(0.5)
    assert found[19] == pytest.approx(0.5 + 1.5 * 0.5 * (1 + math.cos(math.pi * 0.5)))
    assert found == sorted(found, reverse=True)


def test_a_constant_schedule_stays_at_the_peak():
    found = rates(ConstantSchedule(kind="constant", warmup_epochs=0.5))
    assert found[5:] == [2.0] * 35


def test_a_run_that_is_all_warm_up_ends_at_the_peak():
    assert rates(CosineSchedule(kind="cosine", warmup_epochs=4.0, final_lr=0.0))[-1] == 2.0
