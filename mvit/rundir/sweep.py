"""The trials of a sweep, from its ledger."""

from __future__ import annotations

from pathlib import Path

from mvit.rundir.ledger import TrialFrozen, TrialPruned, read_events
from mvit.rundir.paths import RunDir


def is_sweep(path: Path) -> bool:
    return RunDir(path).ledger.exists()


def read_trials(folder: Path) -> list[TrialFrozen]:
    """The trials in their order, also those whose line is torn: without their overrides then."""
    known = {event.folder: event for event in read_events(folder) if isinstance(event, TrialFrozen)}
    names = sorted({file.parent.name for file in folder.glob("*/run.json")} | set(known))
    lost = (TrialFrozen(trial=number, folder=name, overrides=()) for number, name in enumerate(names))
    return [known.get(one.folder, one) for one in lost]


def trials_of(folder: Path) -> list[RunDir]:
    """The runs of a sweep, in their order."""
    return [RunDir(folder / trial.folder) for trial in read_trials(folder)]


def pruned_trials(folder: Path) -> set[int]:
    """The trials that were still paused when the sweep ended."""
    return {event.trial for event in read_events(folder) if isinstance(event, TrialPruned)}
