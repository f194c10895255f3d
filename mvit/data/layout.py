"""Layout: what the splits of a person's image folder are called, or a new division of it into two."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from mvit.data.imagefolder import IMAGE_ENDINGS
from mvit.errors import DatasetError, Problem
from mvit.files import whole_folder

TRAIN = ("train", "training")
HELD_OUT = ("val", "valid", "validation", "dev", "test", "testing")
"""Usual names of the other split, the one to validate on first."""


@dataclass(frozen=True)
class Layout:
    """Where both splits are; the fields are those of `ImageFolderData`."""

    root: str
    train_folder: str
    val_folder: str
    class_names: str | None = None
    unused: tuple[str, ...] = ()
    """Further folders that look like a split."""


def layout_of(root: Path) -> Layout:
    """The splits by their names; raises `DatasetError` where there are not two."""
    folders = _folders(root)
    by_name = {folder.lower(): folder for folder in folders}
    train = next((by_name[name] for name in TRAIN if name in by_name), None)
    held_out = [by_name[name] for name in HELD_OUT if name in by_name]
    if train and held_out:
        return Layout(str(root.resolve()), train, held_out[0], unused=tuple(held_out[1:]))
    if train:
        rule = f"has {train}, but no folder to validate on ({', '.join(HELD_OUT[:3])}, test)"
        raise _wrong(root, rule, f"add one, or divide {train}: --data {root / train} --val-share 0.2")
    if held_out:
        raise _wrong(root, f"has {held_out[0]}, but no folder to train on", "add one that is called train")
    if any(_images(root / folder) for folder in folders):
        raise _wrong(root, "has a folder for each class, but no train and val", "hold some out with --val-share 0.2")
    inner = [folder for folder in folders if {name.lower() for name in _folders(root / folder)} & {*TRAIN}]
    if inner:
        raise _wrong(root, f"has train one folder further down, in {inner[0]}", f"use --data {root / inner[0]}")
    if _images(root):
        raise _wrong(root, "has images, but no folder for each class", "move the images of each class into a folder")
    raise _wrong(root, "has no images", f"name the folder that has train and val; images end in {_endings()}")


def divide(root: Path, out: Path, *, val_share: float) -> Layout:
    """Links to the images of class folders, as train and val in `out`, which appears complete or not at all.

    Of each class, the images whose names have the smallest hashes are held out: the same ones at each call. Raises
    `DatasetError` and `OSError`.
    """
    folders = _folders(root)
    if any(folder.lower() in (*TRAIN, *HELD_OUT) for folder in folders):
        raise _wrong(root, "has a split already", "leave --val-share out")
    images = {folder: found for folder in folders if (found := _images(root / folder))}
    if not images:
        raise _wrong(root, "has no folder with images for each class", f"images end in {_endings()}")
    if few := [folder for folder, found in images.items() if len(found) < 2]:
        raise _wrong(root, f"has a class with one image: {few[0]}", "add images, or remove the class")
    if out.exists():
        raise DatasetError(Problem("DIR", str(out), "already exists", "remove it, or use another DIR"))
    with whole_folder(out) as room:
        for folder, found in images.items():
            shuffled = sorted(
                found, key=lambda name, folder=folder: hashlib.sha256(os.fsencode(f"{folder}/{name}")).digest()
            )
            held_out = min(len(found) - 1, max(1, round(val_share * len(found))))
            for split, names in (("val", shuffled[:held_out]), ("train", shuffled[held_out:])):
                (room / split / folder).mkdir(parents=True)
                for name in names:
                    (room / split / folder / name).symlink_to((root / folder / name).resolve())
    return Layout(str(out.resolve()), "train", "val")


def _folders(root: Path) -> list[str]:
    if not root.is_dir():
        rule = "is not a directory" if root.exists() else "does not exist"
        raise _wrong(root, rule, "name the folder that has train and val")
    try:
        with os.scandir(root) as entries:
            return sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))
    except OSError as error:
        raise _wrong(root, f"cannot be read: {error.strerror}", "change its permissions") from error


def _images(folder: Path) -> list[str]:
    with os.scandir(folder) as entries:
        return [entry.name for entry in entries if entry.name.lower().endswith(IMAGE_ENDINGS) and entry.is_file()]


def _endings() -> str:
    return ", ".join(IMAGE_ENDINGS)


def _wrong(root: Path, rule: str, remedy: str) -> DatasetError:
    return DatasetError(Problem("--data", str(root), rule, remedy))
