"""The runs that a word may name: short ids, the newest first."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from mvit.cli.complete.candidate import Candidate
from mvit.cli.complete.line import LAUNCHER
from mvit.rundir.names import all_folders, names_of

RUNS = LAUNCHER.with_name("runs")


def candidates(runs: Path = RUNS) -> Iterator[Candidate]:
    """Every run and sweep, then the trials of sweeps."""
    folders = sorted(all_folders(runs), key=lambda folder: folder.name, reverse=True)
    for folder in sorted(folders, key=lambda folder: len(folder.parts)):
        _, own, numbered, _ = names_of(folder, runs)
        is_trial = folder.parent.parent != runs
        name = folder.relative_to(runs).parts[0]
        yield Candidate(numbered if is_trial else own, f"{name}, {folder.parent.name if is_trial else folder.name}")
