"""Configuration of a sweep: how several runs are chosen, gone through and compared.

The values are chosen in `conf/sweep/`; nothing here has a default.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Discriminator, Field, Tag

from mvit.config import FailureKind, Frozen, Strings

Share = Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(strict=False, min_length=1)]

Objective = Literal[
    "best/val_acc1", "val/acc1", "val/acc5", "val/ema_acc1", "val/ema_acc5", "perf/images_per_s",
    "val/loss", "val/ema_loss", "train/loss", "perf/step_ms", "perf/peak_rss_mb", "params",
]  # fmt: skip
"""What trials can be compared by: metrics of a run, and `params`, its number of parameters."""
RISES: frozenset[Objective] = frozenset(
    ("best/val_acc1", "val/acc1", "val/acc5", "val/ema_acc1", "val/ema_acc5", "perf/images_per_s")
)
"""Objectives of which more is better; of the others, less is."""


class NoPruner(Frozen):
    """Every trial runs to its end."""

    kind: Literal["none"]


class HalvingPruner(Frozen):
    """Asynchronous successive halving: at each rung the best share goes on, the others are paused until they are it."""

    kind: Literal["halving"]
    first_rung: int = Field(ge=1, description="Epochs of the first rung.")
    factor: int = Field(
        ge=2,
        description="Each rung has so many times the epochs of the one before, and one of so many trials reaches it.",
    )
    finalists: int = Field(
        ge=1, description="Trials that come to their end at least: the best of those that are still paused go on."
    )


class MedianPruner(Frozen):
    """A trial that is worse than the median of the others after as many epochs is paused."""

    kind: Literal["median"]
    first_rung: int = Field(ge=1, description="Epochs before a trial is first compared.")
    every_epochs: int = Field(ge=1, description="Epochs between comparisons.")
    min_trials: int = Field(ge=2, description="Trials that must have come so far; before, all go on.")


Pruner = Annotated[NoPruner | HalvingPruner | MedianPruner, Field(discriminator="kind")]


class SweepSettings(Frozen):
    """What every kind of sweep has."""

    slots: Annotated[
        Annotated[int, Field(ge=1), Tag("count")]
        | Annotated[tuple[Share, ...], Field(strict=False, min_length=1), Tag("shares")],
        Discriminator(lambda slots: "shares" if isinstance(slots, list | tuple) else "count"),
    ] = Field(
        description="Trials at a time: how many equal slots, or the cores or cards of each, as [[0,1],[2,3]]. A trial"
        " takes a slot for each of its workers; a single slot is for any trial."
    )
    objectives: Annotated[tuple[Objective, ...], Field(strict=False, min_length=1)] = Field(
        description="What trials are compared by, the first one above all: metrics, or params. Accuracy and img/s are"
        " to rise, the others to fall."
    )
    pruner: Pruner = Field(description="Which trials are paused before their end, to be resumed if they turn out well.")
    retries: Annotated[tuple[FailureKind, ...], Field(strict=False)] = Field(
        description="Failures that `resume` tries again: those of a class that may not come back. `--failed` tries all."
    )
    fail_fast: bool = Field(description="Stop the whole sweep, after checkpoints, when one trial has failed.")
    max_failures_in_a_row: int = Field(
        ge=1, description="So many failures in a row, or one of class disk or config, and no other trial is started."
    )
    max_hours: float | None = Field(
        gt=0.0, description="Stop the sweep, after checkpoints, once it has run so long; null sets no limit."
    )
    again: bool = Field(description="Run a trial that has the configuration of an earlier one of the sweep, too.")
    preview: bool = Field(description="Print the trials and how long they will take, and stop.")


class GridSweep(SweepSettings):
    """Every combination of the values, or the trials of a file."""

    kind: Literal["grid"]
    trials: Annotated[str, Field(pattern="^@.+")] | None = Field(
        description="A CSV file of trials, as @trials.csv: a column for each key, a row for each trial; null: the"
        " combinations of the values on the command line."
    )

    @property
    def file(self) -> Path | None:
        """The CSV file of the trials."""
        return Path(self.trials.removeprefix("@")) if self.trials else None


class SearchSweep(SweepSettings):
    """Trials that a sampler draws, each from what those before it came to (Optuna, ask and tell)."""

    kind: Literal["search"]
    sampler: Literal["tpe", "random", "quasi_random", "grid", "cma_es"] = Field(
        description="tpe: tree-structured Parzen estimator; quasi_random: a Sobol sequence; grid: all values once, of"
        " lists alone; cma_es: needs `pip install cmaes`."
    )
    max_trials: int = Field(ge=1, description="Trials that are drawn.")
    seed: int = Field(ge=0, lt=2**32, description="Seed of the draws, together with a trial's number.")
    start_from: Strings = Field(description="Folders of earlier sweeps over the same keys, whose trials are known.")


SweepConfig = Annotated[GridSweep | SearchSweep, Field(discriminator="kind")]


class SweepRequest(Frozen):
    """What a launch of several runs has beside the configurations of the runs."""

    sweep: SweepConfig
