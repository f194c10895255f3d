"""The accuracy that a result claims: of the weights or of their average, and the same for all runs of a job."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Literal

Scores = Literal["val/", "val/ema_"]
"""What the metrics of an evaluation begin with."""


def scores_of(runs: Sequence[Mapping[str, float]]) -> Scores:
    """Those that count for runs with these metrics: of the average where all have one and it is better in the mean.

    Chosen for each run alone, the mean over the seeds would be that of the luckier of two numbers.
    """
    raw, averaged = (_top1(runs, scores) for scores in ("val/", "val/ema_"))
    return "val/ema_" if averaged and (not raw or statistics.fmean(averaged) > statistics.fmean(raw)) else "val/"


def accuracies(runs: Sequence[Mapping[str, float]]) -> list[float]:
    """acc@top1 of each of these runs at its end, percent; nothing where one has none."""
    return _top1(runs, scores_of(runs))


def _top1(runs: Sequence[Mapping[str, float]], scores: Scores) -> list[float]:
    key = f"{scores}acc1"
    return [metrics[key] for metrics in runs] if all(key in metrics for metrics in runs) else []
