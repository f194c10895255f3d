"""Which samples a dataset has: a look at it that needs no MindSpore.

The parent looks before it launches, the workers look again and compare fingerprints. Images are decoded here only to
find the unreadable ones.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from mvit.check import Problem
from mvit.config import Data, DigitsData, ImageFolderData, SyntheticData
from mvit.plan import DatasetFacts

DIGITS_TRAIN, DIGITS_VAL = 1437, 360
DECODABLE = ("JPEG", "PNG", "BMP", "TIFF")
"""What MindSpore decodes, whatever the file is called; Pillow reads more."""
IMAGE_ENDINGS = (".jpg", ".jpeg", ".png", ".bmp")


class DatasetError(Exception):
    """Data that cannot be used."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(str(problem))
        self.problem = problem


@dataclass(frozen=True)
class Split:
    """One split of an image folder: paths relative to the root, in a fixed order, and the class of each."""

    paths: tuple[str, ...]
    labels: tuple[int, ...]


def look(data: Data) -> DatasetFacts:
    """Counts, class names and fingerprint; raises `DatasetError` for a folder that is missing or empty."""
    match data:
        case DigitsData():
            names = tuple(str(digit) for digit in range(10))
            return _facts(DIGITS_TRAIN, DIGITS_VAL, names, ["scikit-learn digits, split 0"])
        case SyntheticData():
            names = tuple(f"class_{index}" for index in range(data.classes))
            parameters = [f"{data.classes} {data.num_train} {data.num_val} {data.image_size}"]
            return _facts(data.num_train, data.num_val, names, parameters)
        case ImageFolderData():
            names, train, val = scan(data)
            root = Path(data.root)
            sizes = (f"{path} {(root / path).stat().st_size}" for path in (*train.paths, *val.paths))
            return _facts(len(train.paths), len(val.paths), names, sizes)


def _facts(num_train: int, num_val: int, class_names: tuple[str, ...], content: Iterable[str]) -> DatasetFacts:
    digest = hashlib.sha256()
    for line in content:
        digest.update(line.encode("utf-8", "surrogateescape") + b"\n")
    return DatasetFacts(
        num_train=num_train,
        num_val=num_val,
        class_names=class_names,
        fingerprint=digest.hexdigest(),
        skipped=(),
    )


def scan(data: ImageFolderData) -> tuple[tuple[str, ...], Split, Split]:
    """Class names, training split and validation split of an image folder."""
    root = Path(data.root)
    if not root.is_dir():
        raise DatasetError(Problem("data.root", data.root, "is no folder", "set the folder that holds train and val"))
    names = _classes(root, data.train_folder, "data.train_folder")
    train = _split(root, data.train_folder, names, "data.train_folder")
    strange = sorted(set(_classes(root, data.val_folder, "data.val_folder")) - set(names))
    if strange:
        rule = f"has classes that {data.train_folder} has not: {', '.join(strange[:3])}"
        raise DatasetError(Problem("data.val_folder", data.val_folder, rule, "name the class folders alike"))
    return names, train, _split(root, data.val_folder, names, "data.val_folder")


def _classes(root: Path, folder: str, key: str) -> tuple[str, ...]:
    if not (root / folder).is_dir():
        raise DatasetError(Problem(key, folder, f"is no folder in {root}", "set its name"))
    names = tuple(sorted(e.name for e in os.scandir(root / folder) if e.is_dir() and not e.name.startswith(".")))
    if not names:
        raise DatasetError(Problem(key, folder, f"holds no class folders in {root}", "give one folder per class"))
    return names


def _split(root: Path, folder: str, names: Sequence[str], key: str) -> Split:
    paths: list[str] = []
    labels: list[int] = []
    for label, name in enumerate(names):
        inside = root / folder / name
        if not inside.is_dir():
            continue
        found = sorted(e.name for e in os.scandir(inside) if e.name.lower().endswith(IMAGE_ENDINGS) and e.is_file())
        paths += [f"{folder}/{name}/{file}" for file in found]
        labels += [label] * len(found)
    if not paths:
        rule = f"holds no images in {root}"
        raise DatasetError(Problem(key, folder, rule, f"images end in {', '.join(IMAGE_ENDINGS)}"))
    return Split(tuple(paths), tuple(labels))


def unreadable(root: Path, paths: Sequence[str], *, threads: int) -> list[str]:
    """The paths whose image does not decode to its end, in order."""
    with ThreadPoolExecutor(threads) as pool:
        broken = pool.map(lambda path: _is_broken(root / path), paths, chunksize=64)
        return [path for path, bad in zip(paths, broken, strict=True) if bad]


def _is_broken(path: Path) -> bool:
    from PIL import Image  # only an image folder needs it

    try:
        with Image.open(path) as image:
            if image.format not in DECODABLE:
                return True
            # A JPEG is read whole but scaled: faster.
            image.draft("RGB", (max(1, image.width // 8), max(1, image.height // 8)))
            image.load()
    except Exception:  # noqa: BLE001  Pillow raises many kinds on files that are none: each means unreadable
        return True
    return False


def without(split: Split, skipped: Iterable[str]) -> Split:
    """The split without the skipped paths."""
    left_out = frozenset(skipped)
    kept = [(p, label) for p, label in zip(split.paths, split.labels, strict=True) if p not in left_out]
    return Split(tuple(p for p, _ in kept), tuple(label for _, label in kept))
