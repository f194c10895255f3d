"""Listing: the image files of a dataset at the time of its survey."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Split:
    """The files of one split in a fixed order: for each its path relative to the root, its class, size and time."""

    paths: tuple[str, ...]
    labels: tuple[int, ...]
    sizes: tuple[int, ...]
    """In bytes."""
    mtimes_ns: tuple[int, ...]

    def without(self, paths: Iterable[str]) -> Split:
        excluded = frozenset(paths)
        kept = [place for place, path in enumerate(self.paths) if path not in excluded]
        return Split(
            paths=tuple(self.paths[place] for place in kept),
            labels=tuple(self.labels[place] for place in kept),
            sizes=tuple(self.sizes[place] for place in kept),
            mtimes_ns=tuple(self.mtimes_ns[place] for place in kept),
        )


@dataclass(frozen=True)
class Listing:
    """Both splits, and the directory name of each class."""

    root: Path
    classes: tuple[str, ...]
    train: Split
    val: Split
