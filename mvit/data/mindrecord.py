"""MindRecord folder: shards written by `python -m mvit pack`, read by random access and without MindSpore.

OUT/
    manifest.json              what is packed; updated after each shard
    train-00000.mindrecord     original encoded bytes; columns data, label, name
    train-00000.mindrecord.db  MindRecord's own index, for its readers
    train-00000.npy            our index: where the bytes of each sample are
    val-00000.mindrecord ...
"""

from __future__ import annotations

import hashlib
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, ValidationError

from mvit.config import Frozen, MindRecordData, Strings
from mvit.data.sample import Blob
from mvit.data.survey import Survey, check_directory, check_same, make_facts
from mvit.errors import DatasetError, Problem
from mvit.plan import DatasetFacts
from mvit.program import MVIT

if TYPE_CHECKING:
    from numpy.typing import NDArray

FORMAT = 1
MANIFEST = "manifest.json"
INDEX = [("offset", "<i8"), ("length", "<i4"), ("crc", "<u4"), ("label", "<i4")]
"""A row of a shard's index: bytes from the start of the shard, zlib.crc32 of the bytes, class."""


@dataclass(frozen=True)
class MindRecord:
    data: MindRecordData

    def survey(self) -> Survey:
        return Survey(_facts(open_manifest(self.data.root)))

    def splits(self, facts: DatasetFacts, _index: Path, /) -> tuple[PackedImages, PackedImages]:
        manifest = open_manifest(self.data.root)
        check_same(_facts(manifest), facts, root=self.data.root)
        return PackedImages(self.data.root, manifest.train), PackedImages(self.data.root, manifest.val)


class PackedFile(Frozen):
    """A file of the directory."""

    file: str
    bytes: int
    sha256: str


class Shard(PackedFile):
    """A MindRecord file, and the two files beside it."""

    count: int
    db: PackedFile
    index: PackedFile
    skipped: Strings
    """Paths of images left out because they cannot be decoded, relative to the source."""


Shards = Annotated[tuple[Shard, ...], Field(strict=False)]


class Manifest(Frozen):
    """manifest.json; while packing, it lists the finished shards."""

    format: Literal[1]
    complete: bool
    source: str
    command: str
    """The command that packed the folder, without OUT."""
    fingerprint: str
    """Of the image folder."""
    num_shards: dict[Literal["train", "val"], int]
    on_unreadable: Literal["refuse", "skip"]
    class_names: Strings
    train: Shards
    val: Shards

    @property
    def shards(self) -> tuple[Shard, ...]:
        return (*self.train, *self.val)


class PackedImages:
    """The images of one split."""

    in_memory = False

    def __init__(self, root: str, shards: tuple[Shard, ...]) -> None:
        """Raises `DatasetError` for a damaged index."""
        import numpy as np  # here and below: the parent does not need it

        self.paths = [str(Path(root) / shard.file) for shard in shards]
        self.firsts = np.cumsum([0, *(shard.count for shard in shards)])
        self.index = np.concatenate([read_index(Path(root), shard) for shard in shards])
        self.labels = self.index["label"].astype(np.int32)

    def sample(self, index: int) -> Blob:
        shard = int(self.firsts.searchsorted(index, side="right")) - 1
        path, row = self.paths[shard], self.index[index]
        name = f"{path} sample {index - self.firsts[shard]}"
        return Blob(path, int(row["offset"]), int(row["length"]), name, int(row["crc"]))


class ManifestError(Exception):
    """A manifest that is damaged or has another format version."""


def read_manifest(folder: Path) -> Manifest | None:
    """The manifest, or None if it does not exist; raises `ManifestError`."""
    try:
        text = (folder / MANIFEST).read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise ManifestError("cannot be read") from error
    try:
        return Manifest.model_validate_json(text)
    except ValidationError as error:
        version = [item["input"] for item in error.errors() if item["loc"] == ("format",)]
        raise ManifestError(f"has format {version[0]}, expected {FORMAT}" if version else "is damaged") from error


def open_manifest(root: str) -> Manifest:
    """The manifest of a directory whose files all have their packed sizes; raises `DatasetError`."""
    folder = Path(root)
    check_directory(folder, key="data.root", value=root, remedy=f"pack it with: {MVIT} pack SRC OUT")
    try:
        manifest = read_manifest(folder)
    except ManifestError as error:
        rule, remedy = str(error), f"pack it again with: {MVIT} pack SRC OUT --overwrite"
        raise DatasetError(Problem("data.root", str(folder / MANIFEST), rule, remedy)) from error
    if manifest is None:
        rule = f"has no {MANIFEST}"
        raise DatasetError(Problem("data.root", root, rule, f"pack it with: {MVIT} pack SRC OUT"))
    again = f"{manifest.command} {shlex.quote(root)}"
    if not manifest.complete:
        raise DatasetError(
            Problem("data.root", root, "is incomplete: packing was interrupted", f"continue with: {again}")
        )
    for shard in manifest.shards:
        for file in (shard, shard.db, shard.index):
            if fault := size_fault(folder, file):
                raise DatasetError(Problem("data.root", str(folder / file.file), fault, f"repair it with: {again}"))
    return manifest


def _facts(manifest: Manifest) -> DatasetFacts:
    """Nothing is marked as skipped: the shards contain no such image."""
    return make_facts(
        num_train=sum(shard.count for shard in manifest.train),
        num_val=sum(shard.count for shard in manifest.val),
        class_names=manifest.class_names,
        content=[f"{shard.file} {shard.sha256}" for shard in manifest.shards],
    )


def size_fault(folder: Path, file: PackedFile) -> str | None:
    """What is wrong with a file, judged by its size: it is missing or truncated."""
    try:
        size = (folder / file.file).stat().st_size
    except OSError:
        return "is missing"
    return None if size == file.bytes else f"has {size} bytes, expected {file.bytes}"


def fault(folder: Path, file: PackedFile) -> str | None:
    """What is wrong with a file; reads all of it."""
    if problem := size_fault(folder, file):
        return problem
    return None if packed_file(folder / file.file).sha256 == file.sha256 else "is damaged: sha256 mismatch"


def packed_file(path: Path) -> PackedFile:
    """A file's entry in the manifest; reads all of the file."""
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
            size += len(block)
    return PackedFile(file=path.name, bytes=size, sha256=digest.hexdigest())


def read_index(folder: Path, shard: Shard) -> NDArray[Any]:
    """(count,) rows of `INDEX`; raises `DatasetError` for a damaged index."""
    import numpy as np

    if problem := fault(folder, shard.index):
        remedy = "run the command in manifest.json again; it rewrites only this shard"
        raise DatasetError(Problem("data.root", str(folder / shard.index.file), problem, remedy))
    return np.load(folder / shard.index.file, allow_pickle=False)
