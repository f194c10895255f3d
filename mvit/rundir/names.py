"""The names of runs and sweeps: their folders, found by the places of their files alone, and what each is called."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

LEVELS = ("*/*/run.json", "*/*/ledger.jsonl", "*/*/*/run.json")
"""The files of runs, sweeps and trials, below where runs are kept."""


def all_folders(runs: Path) -> Iterator[Path]:
    """Every run, sweep and trial below `runs`."""
    for pattern in LEVELS:
        for file in sorted(runs.glob(pattern)):
            yield file.parent


def names_of(folder: Path, runs: Path) -> tuple[str, ...]:
    """The folder's name, its short id, for a trial also with its number, and the folder's with that above it."""
    name, parts = folder.name, folder.name.split("-")
    return name, parts[-1], f"{parts[0]}-{parts[-1]}", f"{folder.relative_to(runs).parts[0]}-{name}"
