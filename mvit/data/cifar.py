"""CIFAR's binary files: records of one or two label bytes and 3072 bytes of pixels, channel first."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from mvit.config import Cifar10Data, Cifar100Data
from mvit.data.facts import DatasetError, facts
from mvit.errors import Problem
from mvit.plan import DatasetFacts

SIDE = 32
PIXELS = 3 * SIDE * SIDE


@dataclass(frozen=True)
class Layout:
    """One of the two datasets, as it is distributed."""

    folder: str
    archive: str
    train: tuple[str, ...]
    val: str
    names: str
    label_bytes: int
    """Bytes before the pixels; the last of them is the class."""

    @property
    def record(self) -> int:
        return self.label_bytes + PIXELS


TEN = Layout(
    folder="cifar-10-batches-bin",
    archive="cifar-10-binary.tar.gz",
    train=tuple(f"data_batch_{number}.bin" for number in range(1, 6)),
    val="test_batch.bin",
    names="batches.meta.txt",
    label_bytes=1,
)
HUNDRED = Layout(
    folder="cifar-100-binary",
    archive="cifar-100-binary.tar.gz",
    train=("train.bin",),
    val="test.bin",
    names="fine_label_names.txt",
    label_bytes=2,
)


@dataclass(frozen=True)
class File:
    """One file: the class of each record, a byte each, and the sha256 of the whole."""

    path: Path
    labels: bytes
    sha256: str


@dataclass(frozen=True)
class Cifar:
    """What is in the files; pixels stay there."""

    layout: Layout
    class_names: tuple[str, ...]
    train: tuple[File, ...]
    val: File


def read(data: Cifar10Data | Cifar100Data) -> Cifar:
    """Class names and labels; raises `DatasetError` for a file that is missing, cut, or of another dataset."""
    layout = TEN if isinstance(data, Cifar10Data) else HUNDRED
    root = Path(data.root)
    if not root.is_dir():
        remedy = f"set the folder that {layout.archive} unpacks to"
        raise DatasetError(Problem("data.root", data.root, "is no folder", remedy))
    if (root / layout.folder).is_dir():
        root = root / layout.folder
    for name in (*layout.train, layout.val, layout.names):
        if not (root / name).is_file():
            remedy = f"unpack {layout.archive} and set its folder {layout.folder}"
            raise DatasetError(Problem("data.root", str(root), f"holds no {name}", remedy))
    lines = (root / layout.names).read_text(encoding="utf-8", errors="replace").splitlines()
    names = tuple(line.strip() for line in lines if line.strip())
    return Cifar(
        layout=layout,
        class_names=names,
        train=tuple(_file(root / name, layout, len(names)) for name in layout.train),
        val=_file(root / layout.val, layout, len(names)),
    )


def facts_of(found: Cifar) -> DatasetFacts:
    """Counts, class names and fingerprint."""
    files = (*found.train, found.val)
    return facts(
        num_train=sum(len(file.labels) for file in found.train),
        num_val=len(found.val.labels),
        class_names=found.class_names,
        content=[f"{file.path.name} {file.sha256}" for file in files],
    )


def _file(path: Path, layout: Layout, num_classes: int) -> File:
    content = path.read_bytes()
    remedy = f"unpack {layout.archive} again"
    if not content or len(content) % layout.record:
        rule = f"has {len(content)} bytes, no multiple of the {layout.record} of a record"
        raise DatasetError(Problem("data.root", str(path), rule, remedy))
    labels = content[layout.label_bytes - 1 :: layout.record]
    if max(labels) >= num_classes:
        rule = f"has a record of class {max(labels)}, {layout.names} names {num_classes} classes"
        raise DatasetError(Problem("data.root", str(path), rule, remedy))
    return File(path, labels, hashlib.sha256(content).hexdigest())
