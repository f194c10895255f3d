"""The learning rate of every step; pure."""

from __future__ import annotations

import math

from mvit.config import ConstantSchedule, CosineSchedule


def learning_rate(
    schedule: CosineSchedule | ConstantSchedule, *, peak: float, step: int, steps_per_epoch: int, total_steps: int
) -> float:
    """Learning rate of `step`, counted from 0.

    Warm-up is linear: step i of w warm-up steps has peak * (i + 1) / w, so none is zero and the last is the peak. The
    cosine then reaches final_lr at the last step: final + (peak - final) * (1 + cos(pi * t)) / 2 with t from 0 to 1.
    """
    warmup = round(schedule.warmup_epochs * steps_per_epoch)
    if step < warmup:
        return peak * (step + 1) / warmup
    match schedule:
        case ConstantSchedule():
            return peak
        case CosineSchedule():
            done = (step - warmup + 1) / max(1, total_steps - warmup)
            return schedule.final_lr + (peak - schedule.final_lr) * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
