"""CIFAR: its binary files, with records of one or two label bytes and 3072 bytes of pixels, channels first."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mvit.config import Cifar10Data, Cifar100Data
from mvit.data.sample import read_bytes
from mvit.data.survey import Survey, check_directory, check_same, make_facts
from mvit.errors import DatasetError, Problem
from mvit.plan import DatasetFacts

if TYPE_CHECKING:
    from PIL import Image

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
    """Bytes before the pixels; the last one is the class."""

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
class Cifar:
    data: Cifar10Data | Cifar100Data

    @property
    def layout(self) -> Layout:
        return TEN if isinstance(self.data, Cifar10Data) else HUNDRED

    def survey(self) -> Survey:
        return Survey(_facts(_read(self.data.root, self.layout)))

    def splits(self, facts: DatasetFacts, _index: Path, /) -> tuple[Records, Records]:
        content = _read(self.data.root, self.layout)
        check_same(_facts(content), facts, root=self.data.root)
        return Records(self.layout, content.train), Records(self.layout, (content.val,))


@dataclass(frozen=True)
class BatchFile:
    """One file: the class of each record, one byte each, and the sha256 of the file."""

    path: Path
    labels: bytes
    sha256: str


@dataclass(frozen=True)
class Content:
    """The content of the files, without pixels."""

    class_names: tuple[str, ...]
    train: tuple[BatchFile, ...]
    val: BatchFile


class Records:
    """The records of one split."""

    in_memory = False

    def __init__(self, layout: Layout, files: Sequence[BatchFile]) -> None:
        import numpy as np  # here and below: the parent does not need it

        self.layout, self.paths = layout, [str(file.path) for file in files]
        self.firsts = np.cumsum([0, *(len(file.labels) for file in files)])
        self.labels = np.frombuffer(b"".join(file.labels for file in files), np.uint8).astype(np.int32)

    def sample(self, index: int) -> Record:
        file = int(self.firsts.searchsorted(index, side="right")) - 1
        record = int(index - self.firsts[file])
        offset = record * self.layout.record + self.layout.label_bytes
        return Record(self.paths[file], offset, f"{self.paths[file]} record {record}")


@dataclass(frozen=True, slots=True)
class Record:
    """The pixels of one record: 3072 bytes from `offset`."""

    path: str
    offset: int
    name: str

    def open(self) -> Image.Image:
        import numpy as np
        from PIL import Image

        pixels = np.frombuffer(read_bytes(self.path, self.offset, PIXELS), np.uint8).reshape(3, SIDE, SIDE)
        return Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0)))


def _read(data_root: str, layout: Layout) -> Content:
    """Class names and labels; raises `DatasetError` for a file that is missing, truncated or from another dataset."""
    root = Path(data_root)
    remedy = f"set it to the directory that contains the unpacked {layout.archive}"
    check_directory(root, key="data.root", value=data_root, remedy=remedy)
    if (root / layout.folder).is_dir():
        root = root / layout.folder
    for name in (*layout.train, layout.val, layout.names):
        if not (root / name).is_file():
            remedy = f"unpack {layout.archive} and set data.root to its directory {layout.folder}"
            raise DatasetError(Problem("data.root", str(root), f"has no {name}", remedy))
    lines = (root / layout.names).read_text(encoding="utf-8", errors="replace").splitlines()
    names = tuple(line.strip() for line in lines if line.strip())
    return Content(
        class_names=names,
        train=tuple(_file(root / name, layout, len(names)) for name in layout.train),
        val=_file(root / layout.val, layout, len(names)),
    )


def _facts(content: Content) -> DatasetFacts:
    files = (*content.train, content.val)
    return make_facts(
        num_train=sum(len(file.labels) for file in content.train),
        num_val=len(content.val.labels),
        class_names=content.class_names,
        content=[f"{file.path.name} {file.sha256}" for file in files],
    )


def _file(path: Path, layout: Layout, num_classes: int) -> BatchFile:
    content = path.read_bytes()
    remedy = f"unpack {layout.archive} again"
    if not content or len(content) % layout.record:
        rule = f"has {len(content)} bytes, not a multiple of the record size {layout.record}"
        raise DatasetError(Problem("data.root", str(path), rule, remedy))
    labels = content[layout.label_bytes - 1 :: layout.record]
    if max(labels) >= num_classes:
        rule = f"contains a record of class {max(labels)}, but {layout.names} lists only {num_classes} classes"
        raise DatasetError(Problem("data.root", str(path), rule, remedy))
    return BatchFile(path, labels, hashlib.sha256(content).hexdigest())
