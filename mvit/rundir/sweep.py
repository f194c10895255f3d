"""sweep.json: what a sweep was asked for, and the folder of each of its trials."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Annotated

from pydantic import Field

from mvit.config import Frozen, Strings
from mvit.files import read_json_bytes, write_json
from mvit.rundir.paths import RunDir


class Trial(Frozen):
    """One run of a sweep."""

    overrides: Strings
    """As a person would type them for this run alone."""
    folder: str


class _Sweep(Frozen):
    trials: Annotated[tuple[Trial, ...], Field(strict=False)]


def is_sweep(path: Path) -> bool:
    return RunDir(path).sweep.exists()


def write_trials(folder: Path, trials: tuple[Trial, ...]) -> None:
    write_json(RunDir(folder).sweep, _Sweep(trials=trials).model_dump(mode="json"))


def read_trials(folder: Path) -> tuple[Trial, ...]:
    """The trials in their order; of a sweep.json that is torn, the folders alone, which sort in that order."""
    with suppress(OSError, ValueError):
        return _Sweep.model_validate_json(read_json_bytes(RunDir(folder).sweep)).trials
    return tuple(Trial(overrides=(), folder=file.parent.name) for file in sorted(folder.glob("*/run.json")))


def trials_of(folder: Path) -> list[RunDir]:
    """The runs of a sweep, in their order."""
    return [RunDir(folder / trial.folder) for trial in read_trials(folder)]
