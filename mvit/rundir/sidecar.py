"""The sidecar of a checkpoint: what belongs to a run beside its tensors, and what vouches for them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from mvit.config import Floats3, Frozen
from mvit.files import read_sealed, sealed, write_json

StepLoss = Annotated[tuple[int, float, int], Field(strict=False)]
"""A step, the sum of its losses, and the number of its images."""


class Position(Frozen):
    """How far a training run has come: the moment after `step` steps."""

    step: int = 0
    averaged: bool = False
    """Whether all workers have the same running statistics, as an evaluation requires."""
    evaluated: bool = False
    """Whether the evaluation that is due after this step is done."""
    window: list[StepLoss] = Field(default_factory=list[StepLoss])
    """The steps since the last journal line."""
    last_loss: float | None = None
    """The training loss of the last journal line."""
    first_step_s: float | None = None
    best: dict[str, float | int] = Field(default_factory=lambda: {"best/val_acc1": -1.0, "best/epoch": 0})
    final: dict[str, float | int] = Field(default_factory=dict)
    """The metrics of the last evaluation, as the journal has them."""

    def advanced(self) -> Position:
        """One step further."""
        return self.model_copy(update={"step": self.step + 1, "averaged": False, "evaluated": False})

    def with_first_step(self, seconds: float) -> Position:
        """The same step, with the time that the first one took."""
        return self.model_copy(update={"first_step_s": seconds})

    def with_averages(self) -> Position:
        """The same step, with running statistics averaged over the workers."""
        return self.model_copy(update={"averaged": True})

    def with_losses(self, window: list[tuple[int, float, int]], *, last: float | None) -> Position:
        """The same step, with the losses that a checkpoint needs."""
        return self.model_copy(update={"window": window, "last_loss": last})

    def with_evaluation(self, *, best: dict[str, float | int], final: dict[str, float | int]) -> Position:
        """The same step, with its evaluation done."""
        return self.model_copy(update={"evaluated": True, "best": best, "final": final})

    def epoch(self, steps_per_epoch: int) -> int:
        """The epoch to continue with, from 1: that of an evaluation that is still due, or of the next step."""
        return max(1, 1 + (self.step - (0 if self.evaluated else 1)) // steps_per_epoch)


class Conventions(Frozen):
    """What images must look like for the weights, and how the network reads them."""

    mean: Floats3
    std: Floats3
    channel_order: Literal["rgb", "bgr"]
    eval_crop_fraction: float
    interpolation: Literal["nearest", "bilinear", "bicubic"]
    antialias: bool
    layer_norm_eps: float
    token_projection: Literal["linear", "conv_norm_silu"]
    num_classes: int


class Sidecar(Frozen):
    """step-<number>.json. The last three fields are those that an evaluation adds."""

    step: int
    epoch: int
    run: str
    """The sha256 of the run.json that the checkpoint belongs to."""
    progress: Position
    conventions: Conventions
    sha256: str | None = None
    """Of the file of tensors; None before that is written."""
    metrics: dict[str, float] | None = None
    best_of: Literal["raw", "ema"] | None = None
    """Which weights were better."""
    score: float | None = None
    """Their top-1 accuracy, percent."""

    def with_evaluation(self, metrics: dict[str, float], *, best_of: Literal["raw", "ema"], score: float) -> Sidecar:
        """The same checkpoint, evaluated."""
        return self.model_copy(update={"metrics": metrics, "best_of": best_of, "score": score})

    def with_digest(self, sha256: str | None) -> Sidecar:
        """The same checkpoint, with the digest of its tensors."""
        return self.model_copy(update={"sha256": sha256})


def read_sidecar(path: Path) -> Sidecar:
    """Raises `OSError`, and `ValueError` where the file is not what was written."""
    content = read_sealed(path)
    return Sidecar.model_validate({key: value for key, value in content.items() if key != "digest"})


def sidecar_of(tensors: Path) -> Sidecar | None:
    """The sidecar beside a file of tensors; None where there is none, as for imported weights. Raises as above."""
    path = tensors.with_suffix(".json")
    return read_sidecar(path) if path.exists() else None


def write_sidecar(path: Path, sidecar: Sidecar) -> None:
    content = sidecar.model_dump(mode="json")
    write_json(path, sealed({key: value for key, value in content.items() if value is not None}))
