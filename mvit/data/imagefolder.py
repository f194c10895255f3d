"""An image folder: two splits, each with a folder of images per class."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from mvit.data.facts import DatasetError, facts
from mvit.errors import Problem
from mvit.plan import DatasetFacts

IMAGE_ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
SYNSETS = "LOC_synset_mapping.txt"
"""ImageNet's names of classes, as it is distributed: `n01440764 tench, Tinca tinca`."""
SCANNERS = 8
"""Threads that list folders: a network file system answers each after a while."""


class Folders(Protocol):
    """Where an image folder is; the fields are those of `ImageFolderData`."""

    @property
    def root(self) -> str: ...
    @property
    def train_folder(self) -> str: ...
    @property
    def val_folder(self) -> str: ...
    @property
    def class_names(self) -> str | None: ...


@dataclass(frozen=True)
class Split:
    """One split: paths relative to the root, in a fixed order, the class of each, and what its file system says."""

    paths: tuple[str, ...]
    labels: tuple[int, ...]
    sizes: tuple[int, ...]
    """In bytes."""
    mtimes_ns: tuple[int, ...]


def scan(data: Folders) -> tuple[tuple[str, ...], Split, Split]:
    """Class folders, training split and validation split; raises `DatasetError`."""
    root = Path(data.root)
    if not root.is_dir():
        raise DatasetError(Problem("data.root", data.root, "is no folder", "set the folder that holds train and val"))
    classes = _classes(root, data.train_folder, "data.train_folder")
    train, empty = _split(root, data.train_folder, classes, "data.train_folder")
    if empty:
        # A class that is silently missing is another experiment.
        rule = f"has class folders without images: {_first(empty)}"
        remedy = f"fill or remove them; images end in {', '.join(IMAGE_ENDINGS)}"
        raise DatasetError(Problem("data.train_folder", data.train_folder, rule, remedy))
    strange = sorted(set(_classes(root, data.val_folder, "data.val_folder")) - set(classes))
    if strange:
        rule = f"has classes that {data.train_folder} has not: {_first(strange)}"
        raise DatasetError(Problem("data.val_folder", data.val_folder, rule, "name the class folders alike"))
    val, _ = _split(root, data.val_folder, classes, "data.val_folder")
    return classes, train, val


def facts_of(data: Folders, classes: Sequence[str], train: Split, val: Split) -> DatasetFacts:
    """The facts of what `scan` found; raises `DatasetError` for class names that cannot be used."""
    content = (f"{path} {size}" for split in (train, val) for path, size in zip(split.paths, split.sizes, strict=True))
    names = class_names(data, classes)
    return facts(num_train=len(train.paths), num_val=len(val.paths), class_names=names, content=content)


def class_names(data: Folders, classes: Sequence[str]) -> list[str]:
    """The name of each class that a person reads; unique."""
    path = Path(data.class_names) if data.class_names else Path(data.root) / SYNSETS
    if not data.class_names and not path.is_file():
        return list(classes)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "no text in UTF-8"
        rule = f"cannot be read ({reason})"
        remedy = "give a file of lines: folder name"
        raise DatasetError(Problem("data.class_names", str(path), rule, remedy)) from error
    known: dict[str, str] = {}
    longest_first = sorted(classes, key=len, reverse=True)  # a folder's name may hold spaces
    for line in (f"{line.strip()} " for line in lines):
        folder = next((name for name in longest_first if line.startswith((f"{name} ", f"{name}\t"))), None)
        if folder is not None:
            known[folder] = line[len(folder) :].partition(",")[0].strip() or folder
    if missing := [name for name in classes if name not in known]:
        rule = f"has no line for the class folders {_first(missing)}"
        raise DatasetError(Problem("data.class_names", str(path), rule, "add lines: folder name"))
    names = [known[name] for name in classes]
    # ImageNet has two kinds of crane, two of maillot.
    times = Counter(names)
    names = [name if times[name] == 1 else f"{name} ({folder})" for name, folder in zip(names, classes, strict=True)]
    return names if len(set(names)) == len(names) else list(classes)


def without(split: Split, skipped: Iterable[str]) -> Split:
    """The split without the skipped paths."""
    left_out = frozenset(skipped)
    kept = [place for place, path in enumerate(split.paths) if path not in left_out]
    return Split(
        paths=tuple(split.paths[place] for place in kept),
        labels=tuple(split.labels[place] for place in kept),
        sizes=tuple(split.sizes[place] for place in kept),
        mtimes_ns=tuple(split.mtimes_ns[place] for place in kept),
    )


def emptied(split: Split, skipped: Iterable[str], classes: Sequence[str]) -> list[str]:
    """The class folders that had images and have none without the skipped paths."""
    left = set(without(split, skipped).labels)
    return [classes[label] for label in sorted(set(split.labels) - left)]


def _classes(root: Path, folder: str, key: str) -> tuple[str, ...]:
    if not (root / folder).is_dir():
        raise DatasetError(Problem(key, folder, f"is no folder in {root}", "set its name"))
    with os.scandir(root / folder) as entries:
        names = tuple(sorted(e.name for e in entries if e.is_dir() and not e.name.startswith(".")))
    if not names:
        raise DatasetError(Problem(key, folder, f"holds no class folders in {root}", "give one folder per class"))
    return names


def _split(root: Path, folder: str, classes: Sequence[str], key: str) -> tuple[Split, list[str]]:
    """The split, and the classes without images."""
    with ThreadPoolExecutor(SCANNERS) as pool:
        found = list(pool.map(lambda name: _images(root / folder / name), classes))
    if not any(found):
        rule = f"holds no images in {root}"
        raise DatasetError(Problem(key, folder, rule, f"images end in {', '.join(IMAGE_ENDINGS)}"))
    split = Split(
        paths=tuple(f"{folder}/{c}/{name}" for c, images in zip(classes, found, strict=True) for name, _, _ in images),
        labels=tuple(label for label, images in enumerate(found) for _ in images),
        sizes=tuple(size for images in found for _, size, _ in images),
        mtimes_ns=tuple(mtime for images in found for _, _, mtime in images),
    )
    return split, [name for name, images in zip(classes, found, strict=True) if not images]


def _images(folder: Path) -> list[tuple[str, int, int]]:
    """Name, size and mtime_ns of each image, sorted; none where there is no folder."""
    found: list[tuple[str, int, int]] = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.lower().endswith(IMAGE_ENDINGS) and entry.is_file():
                    status = entry.stat()
                    found.append((entry.name, status.st_size, status.st_mtime_ns))
    except (FileNotFoundError, NotADirectoryError):
        return []
    return sorted(found)


def _first(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
