"""Schedule: the learning rate of every step, as pure functions."""

from __future__ import annotations

import math

from mvit.config import (
    ConstantSchedule,
    CosineSchedule,
    OneCycleSchedule,
    OptimizerConfig,
    PolynomialSchedule,
    Schedule,
    StepSchedule,
)


def scaled_lr(optimizer: OptimizerConfig, *, global_batch_size: int) -> float:
    """Peak learning rate, scaled linearly from lr_batch_size if it is set (arXiv 1706.02677, section 2.1)."""
    if optimizer.lr_batch_size is None:
        return optimizer.lr
    return optimizer.lr * global_batch_size / optimizer.lr_batch_size


def learning_rate(schedule: Schedule, *, peak: float, step: int, steps_per_epoch: int, total_steps: int) -> float:
    """Learning rate of `step`, counted from 0.

    Step i of w warm-up steps has from + (peak - from) * i / w, so the first step has `warmup_from` and step w is the
    first at the peak: MindCV's linear_refined_lr, and cvnets' warm-up in iterations.

    cosine       final + (peak - final) * (1 + cos(pi * t)) / 2 (arXiv 1608.03983, equation 5); t goes from 0 at the end
                 of the warm-up (MindCV's cosine_decay_refined_lr) or at step 0 (cvnets) to 1 at the end of the last
                 step; changes_every=epoch takes t at the first step of the current epoch
    step         peak * factor ** (number of milestones passed)
    polynomial   final + (peak - final) * (1 - t) ** power (arXiv 1606.00915), t from the end of the warm-up
    one_cycle    a half cosine up and one down (PyTorch's OneCycleLR in two phases); the last step has final_lr
    """
    if schedule.kind == "one_cycle":
        return _one_cycle(schedule, peak=peak, step=step, total_steps=total_steps)
    warmup = round(schedule.warmup * (steps_per_epoch if schedule.warmup_unit == "epochs" else 1))
    if step < warmup:
        return schedule.warmup_from + (peak - schedule.warmup_from) * step / warmup
    match schedule:
        case ConstantSchedule():
            return peak
        case StepSchedule():
            return peak * schedule.factor ** sum(step / steps_per_epoch >= epoch for epoch in schedule.milestones)
        case PolynomialSchedule():
            rest = 1.0 - _share(step, begin=warmup, end=total_steps)
            return schedule.final_lr + (peak - schedule.final_lr) * rest**schedule.power
        case CosineSchedule():
            at = step if schedule.changes_every == "step" else step - step % steps_per_epoch
            begin = warmup if schedule.begins == "after_warmup" else 0
            return _half_cosine(peak, schedule.final_lr, _share(at, begin=begin, end=total_steps))


def _one_cycle(schedule: OneCycleSchedule, *, peak: float, step: int, total_steps: int) -> float:
    top = max(0.0, schedule.rising * total_steps - 1.0)  # the peak, possibly between two steps
    if step < top:
        return _half_cosine(schedule.initial_lr, peak, step / top)
    return _half_cosine(peak, schedule.final_lr, _share(step, begin=top, end=total_steps - 1))


def _share(step: int, *, begin: float, end: int) -> float:
    """Progress of `step` from `begin` to `end`, clamped to 0 and 1."""
    return min(1.0, max(0.0, step - begin) / (end - begin)) if end > begin else 1.0


def _half_cosine(first: float, last: float, share: float) -> float:
    return last + (first - last) * (1.0 + math.cos(math.pi * share)) / 2
