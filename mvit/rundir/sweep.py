"""The trials of a sweep, from its ledger."""

from __future__ import annotations

from pathlib import Path

from mvit.rundir.ledger import SearchExhausted, SweepRequest, TrialFrozen, TrialPruned, read_events
from mvit.rundir.paths import RunDir
from mvit.sweep_config import SearchSweep


def is_sweep(path: Path) -> bool:
    return RunDir(path).ledger.exists()


def short_id(folder: Path) -> str:
    """`20261123-132054-f029` as `f029`; a trial's with its number, as `07-f029`."""
    first, *_, last = parts if len(parts := folder.name.split("-")) > 1 else ("", folder.name)
    return f"{first}-{last}" if is_sweep(folder.parent) else last


def read_trials(folder: Path) -> list[TrialFrozen]:
    """The trials in their order, also those whose line is torn: without their overrides then."""
    known = {event.folder: event for event in read_events(folder) if isinstance(event, TrialFrozen)}
    names = sorted({file.parent.name for file in folder.glob("*/run.json")} | set(known))
    trials = [known.get(name) or TrialFrozen(trial=_number(name), folder=name, overrides=()) for name in names]
    return sorted(trials, key=lambda trial: trial.trial)


def _number(folder: str) -> int:
    """The number of a trial, from the name of its folder."""
    number = folder.partition("-")[0]
    return int(number) if number.isdecimal() else 0


def not_drawn(folder: Path) -> int:
    """How many trials of a search are still to be drawn."""
    events = list(read_events(folder))
    requested = next((event for event in reversed(events) if isinstance(event, SweepRequest)), None)
    if requested is None or not isinstance(requested.sweep, SearchSweep):
        return 0
    if any(isinstance(event, SearchExhausted) and event.time > requested.time for event in events):
        return 0
    return max(0, requested.sweep.max_trials - len(read_trials(folder)))


def trials_of(folder: Path) -> list[RunDir]:
    """The runs of a sweep, in their order."""
    return [RunDir(folder / trial.folder) for trial in read_trials(folder)]


def pruned_trials(folder: Path) -> set[int]:
    """The trials that were still paused when the sweep ended."""
    return {event.trial for event in read_events(folder) if isinstance(event, TrialPruned)}
