"""result.json: the numbers of a finished run; rank 0 writes it last."""

from __future__ import annotations

from contextlib import suppress
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from mvit.config import Frozen
from mvit.files import read_json_bytes, write_json
from mvit.rundir.measured import Measured
from mvit.rundir.paths import RunDir
from mvit.rundir.profile import Profile

EvaluatedWeights = Literal["raw", "ema", "exported"]


class TrainResult(Frozen):
    """What a training run ended with."""

    task: Literal["train"]
    steps: int
    metrics: dict[str, float]
    """The last evaluation, the best accuracy, and what was measured; keys are the metric names of the journal."""
    graphs: dict[str, float]
    """Seconds that each graph took to compile."""
    compiled: int
    """Training graphs that were compiled; another number than planned means one was compiled while measuring."""


class EvaluateResult(Frozen):
    """What an evaluation ended with."""

    task: Literal["evaluate"]
    metrics: dict[str, float]
    graphs: dict[str, float]
    correct1: int
    correct5: int
    count: int
    """Images, each counted once."""
    weights: EvaluatedWeights


class PredictResult(Frozen):
    """What a prediction ended with."""

    task: Literal["predict"]
    metrics: dict[str, float]
    graphs: dict[str, float]
    count: int
    """Images that were predicted."""
    unreadable: int
    """Images that were not."""
    weights: Literal["raw", "ema"]


class ExportResult(Frozen):
    """What an export ended with."""

    task: Literal["export"]
    metrics: dict[str, float]
    """Among them, of each format, the largest difference of a logit from the checkpoint's, and the share of images
    whose first class is the same."""
    graphs: dict[str, float]
    count: int
    """Images that the check compared."""
    weights: Literal["raw", "ema"]


class BenchmarkResult(Frozen):
    """What a benchmark ended with."""

    task: Literal["benchmark"]
    metrics: dict[str, float]
    graphs: dict[str, float]
    shapes: Annotated[tuple[Measured, ...], Field(strict=False)]


class ProfileResult(Frozen):
    """What a profile ended with."""

    task: Literal["profile"]
    metrics: dict[str, float]
    graphs: dict[str, float]
    profiles: Annotated[tuple[Profile, ...], Field(strict=False)]


Result = Annotated[
    TrainResult | EvaluateResult | PredictResult | ExportResult | BenchmarkResult | ProfileResult,
    Field(discriminator="task"),
]
_ADAPTER: TypeAdapter[Result] = TypeAdapter(Result)


def write_result(folder: RunDir, result: Result) -> None:
    write_json(folder.result, result.model_dump(mode="json"))


def read_result(folder: RunDir) -> Result | None:
    """The result; None while there is none, or where it is torn."""
    with suppress(OSError, ValueError):
        return _ADAPTER.validate_json(read_json_bytes(folder.result))
    return None
