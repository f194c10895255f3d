"""Unlabelled: image files that a person names, for a network to predict."""

from __future__ import annotations

import glob
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from mvit.config import FilesData
from mvit.data import index as data_index
from mvit.data.imagefolder import IMAGE_ENDINGS, ImageFiles
from mvit.data.listing import Listing, Split
from mvit.data.survey import Survey, make_facts
from mvit.errors import DatasetError, Problem
from mvit.plan import DatasetFacts

STANDARD_INPUT = "-"
ROOT = Path("/")
"""What the paths of a listing start from: those that were named may be anywhere."""


@dataclass(frozen=True)
class Unlabelled:
    data: FilesData

    def survey(self) -> Survey:
        """The files, in the order in which they are named, each once; they are the validation split."""
        files = list(dict.fromkeys(os.path.abspath(path) for path in self._named()))  # noqa: PTH100  Path.absolute keeps ..
        if not files:
            rule = f"holds no image: files end in {', '.join(IMAGE_ENDINGS)}"
            raise DatasetError(Problem("data.images", ", ".join(self.data.images), rule, "name another one"))
        return self._survey_of(files)

    def survey_of_index(self, facts: DatasetFacts, index: Path) -> Survey | None:
        """What `survey` found, as it is now, where standard input gave paths: it gives them once."""
        if STANDARD_INPUT not in self.data.images:
            return None
        _, val = data_index.read(index, facts=facts)
        return self._survey_of([f"{ROOT}{val.path(number)}" for number in range(len(val.labels))])

    def _survey_of(self, files: Sequence[str]) -> Survey:
        sizes = [_size(path) for path in files]
        val = Split(
            paths=tuple(path.lstrip("/") for path in files),
            labels=(0,) * len(files),
            sizes=tuple(sizes),
            mtimes_ns=(0,) * len(files),
        )
        facts = make_facts(
            num_train=0,
            num_val=len(files),
            class_names=self.data.class_names,
            content=(f"{path} {size}" for path, size in zip(files, sizes, strict=True)),
        )
        none = Split(paths=(), labels=(), sizes=(), mtimes_ns=())
        return Survey(facts, Listing(ROOT, self.data.class_names, none, val), "report")

    def splits(self, facts: DatasetFacts, index: Path, /) -> tuple[ImageFiles, ImageFiles]:
        train, val = data_index.read(index, facts=facts)
        return ImageFiles("", train), ImageFiles("", val)

    def _named(self) -> Iterator[str]:
        """A path for each file; raises `DatasetError` for a name that leads nowhere."""
        for name in self.data.images:
            if name == STANDARD_INPUT:  # what is missing among these is reported as unreadable
                yield from filter(None, (line.rstrip("\r\n") for line in sys.stdin))
            elif Path(name).is_dir():
                yield from _below(name)
            elif Path(name).exists():  # before patterns, which a file's name may look like
                yield name
            elif glob.has_magic(name):
                yield from filter(_is_image, sorted(glob.glob(name, recursive=True)))  # noqa: PTH207  Path's takes no absolute pattern
            else:
                raise DatasetError(Problem("data.images", name, "does not exist", "name a file, a folder or a pattern"))


def absolute_name(name: str) -> str:
    """What a person named, as it is named from any directory."""
    if name == STANDARD_INPUT:
        return name
    is_pattern = glob.has_magic(name) and not Path(name).exists()  # what stands before it is none
    return str(Path(glob.escape(str(Path.cwd())), name) if is_pattern else Path(name).absolute())


def _below(folder: str) -> Iterator[str]:
    """The image files of a folder and all that are in it, sorted; hidden ones are left out.

    Links are followed, into each folder once. Raises `OSError` for a folder that cannot be read.
    """
    seen: set[tuple[int, int]] = set()
    for parent, folders, files in os.walk(folder, onerror=_raise, followlinks=True):
        status = Path(parent).stat()
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (f"{parent}/{name}" for name in sorted(files) if _is_image(name))  # texts: there may be a million


def _raise(error: OSError) -> None:
    raise error


def _is_image(path: str) -> bool:
    return path.lower().endswith(IMAGE_ENDINGS) and not path.rpartition("/")[2].startswith(".")


def _size(path: str) -> int:
    """In bytes; 0 for a file that does not exist."""
    try:
        return Path(path).stat().st_size
    except OSError:
        return 0
