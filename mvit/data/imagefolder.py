"""Image folder: two splits, each with one directory of images per class."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from mvit.config import ImageFolderData
from mvit.data import index as data_index
from mvit.data.index import IndexedFiles
from mvit.data.listing import Listing, Split
from mvit.data.sample import File
from mvit.data.survey import Survey, check_directory, make_facts
from mvit.errors import DatasetError, Problem
from mvit.plan import DatasetFacts

IMAGE_ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
SYNSETS = "LOC_synset_mapping.txt"
"""ImageNet's class names, as distributed: `n01440764 tench, Tinca tinca`."""
SCANNERS = 8
"""Threads that list directories: a network file system is slow to answer each request."""


@dataclass(frozen=True)
class ImageFolder:
    data: ImageFolderData

    def survey(self) -> Survey:
        listing = scan(self.data)
        return Survey(facts_of(self.data, listing), listing, self.data.on_unreadable)

    def splits(self, facts: DatasetFacts, index: Path, /) -> tuple[ImageFiles, ImageFiles]:
        train, val = data_index.read(index, facts=facts)
        return ImageFiles(self.data.root, train), ImageFiles(self.data.root, val)


class ImageFiles:
    """The files of one split."""

    in_memory = False

    def __init__(self, root: str, files: IndexedFiles) -> None:
        self.root, self.files, self.labels = root, files, files.labels

    def sample(self, index: int) -> File:
        return File(f"{self.root}/{self.files.path(index)}")  # joined as text: a Path per image costs 25 us


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


def scan(data: Folders) -> Listing:
    """List every directory once; raises `DatasetError`."""
    root = Path(data.root)
    check_directory(
        root, key="data.root", value=data.root, remedy="set it to the directory that contains train and val"
    )
    classes = _classes(root, data.train_folder, "data.train_folder")
    train, empty = _split(root, data.train_folder, classes, "data.train_folder")
    if empty:
        # Training with a class missing is a different experiment.
        rule = f"has empty class directories: {_first(empty)}"
        remedy = f"fill or remove them; image files end in {', '.join(IMAGE_ENDINGS)}"
        raise DatasetError(Problem("data.train_folder", data.train_folder, rule, remedy))
    unknown = sorted(set(_classes(root, data.val_folder, "data.val_folder")) - set(classes))
    if unknown:
        rule, remedy = (
            f"has classes that are not in {data.train_folder}: {_first(unknown)}",
            "use the same names in both",
        )
        raise DatasetError(Problem("data.val_folder", data.val_folder, rule, remedy))
    val, _ = _split(root, data.val_folder, classes, "data.val_folder")
    return Listing(root, classes, train, val)


def facts_of(data: Folders, listing: Listing) -> DatasetFacts:
    """The facts of a listing; raises `DatasetError` for class names that cannot be used."""
    train, val = listing.train, listing.val
    content = (f"{path} {size}" for split in (train, val) for path, size in zip(split.paths, split.sizes, strict=True))
    names = class_names(data, listing.classes)
    return make_facts(num_train=len(train.paths), num_val=len(val.paths), class_names=names, content=content)


def class_names(data: Folders, classes: Sequence[str]) -> list[str]:
    """A readable, unique name for each class."""
    path = Path(data.class_names) if data.class_names else Path(data.root) / SYNSETS
    if not data.class_names and not path.is_file():
        return list(classes)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        rule, remedy = f"cannot be read ({reason})", "use a UTF-8 text file with lines `directory name`"
        raise DatasetError(Problem("data.class_names", str(path), rule, remedy)) from error
    name_of: dict[str, str] = {}
    longest_first = sorted(classes, key=len, reverse=True)  # a directory's name may contain spaces
    for line in (f"{line.strip()} " for line in lines):
        folder = next((name for name in longest_first if line.startswith((f"{name} ", f"{name}\t"))), None)
        if folder is not None:
            name_of[folder] = line[len(folder) :].partition(",")[0].strip() or folder
    if missing := [name for name in classes if name not in name_of]:
        rule = f"has no line for class {_first(missing)}"
        raise DatasetError(Problem("data.class_names", str(path), rule, "add one as `directory name`"))
    names = [name_of[name] for name in classes]
    # ImageNet has two classes called crane, and two called maillot.
    times = Counter(names)
    names = [name if times[name] == 1 else f"{name} ({folder})" for name, folder in zip(names, classes, strict=True)]
    return names if len(set(names)) == len(names) else list(classes)


def _classes(root: Path, folder: str, key: str) -> tuple[str, ...]:
    check_directory(root / folder, key=key, value=folder, remedy="set it to the name of the split's directory")
    with os.scandir(root / folder) as entries:
        names = tuple(sorted(e.name for e in entries if e.is_dir() and not e.name.startswith(".")))
    if not names:
        rule = f"has no class directories in {root}"
        raise DatasetError(Problem(key, folder, rule, "create one directory per class"))
    return names


def _split(root: Path, folder: str, classes: Sequence[str], key: str) -> tuple[Split, list[str]]:
    """The split, and the classes without images."""
    with ThreadPoolExecutor(SCANNERS) as pool:
        images_of = list(pool.map(_images, (root / folder / name for name in classes)))
    if not any(images_of):
        rule = f"has no images in {root}"
        raise DatasetError(Problem(key, folder, rule, f"image files end in {', '.join(IMAGE_ENDINGS)}"))
    split = Split(
        paths=tuple(
            f"{folder}/{name}/{file}" for name, images in zip(classes, images_of, strict=True) for file, _, _ in images
        ),
        labels=tuple(label for label, images in enumerate(images_of) for _ in images),
        sizes=tuple(size for images in images_of for _, size, _ in images),
        mtimes_ns=tuple(mtime for images in images_of for _, _, mtime in images),
    )
    return split, [name for name, images in zip(classes, images_of, strict=True) if not images]


def _images(folder: Path) -> list[tuple[str, int, int]]:
    """Name, size and mtime_ns of each image, sorted; empty if there is no such directory."""
    images: list[tuple[str, int, int]] = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.lower().endswith(IMAGE_ENDINGS) and entry.is_file():
                    status = entry.stat()
                    images.append((entry.name, status.st_size, status.st_mtime_ns))
    except (FileNotFoundError, NotADirectoryError):
        return []
    return sorted(images)


def _first(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
