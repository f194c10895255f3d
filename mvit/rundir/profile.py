"""profile/: which operators the time of a step goes to, by graph; beside result.json, for a person and for Perfetto."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from mvit.config import Frozen, Mode

Phases = dict[str, float]


def table_file(folder: Path, mode: Mode) -> Path:
    """CSV: every operator of the graph by its name, the one that takes longest first."""
    return folder / f"{mode}-operators.csv"


def trace_file(folder: Path, mode: Mode) -> Path:
    """Chrome's trace format, which ui.perfetto.dev opens: every call on a time line."""
    return folder / f"{mode}-trace.json"


class OperatorTime(Frozen):
    """All operators of one kind, or one of them, in an average step."""

    operator: str
    calls: float
    ms: float
    share_pct: float
    """Of the step's time; what operators do not take is left over."""


class Profile(Frozen):
    """The steps of one graph whose operators were recorded."""

    graph: str
    mode: Mode
    steps: int
    step_ms: float
    """The mean of those steps, which the recording slows down."""
    unrecorded_step_ms: float
    """The median of as many steps right before."""
    operators: Annotated[tuple[OperatorTime, ...], Field(strict=False)]
    """By kind, the one that takes longest first."""
    phases: Phases
    """Seconds of the phases of the compilation, by MindSpore's names; empty where it tells none."""
