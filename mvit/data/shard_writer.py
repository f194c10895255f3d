"""Shard writer: writes one MindRecord shard, reads it back and indexes it."""

# pyright: basic
# MindSpore, whose writer this drives, carries no types.

from __future__ import annotations

import json
import os
import sqlite3
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mvit.data.mindrecord import INDEX, Shard, packed_file
from mvit.data.readable import is_broken
from mvit.files import as_utf8, fsync_dir

BATCH = 64
"""Images that are test-decoded while the same number is being written."""
HEADER_BYTES = 1 << 20
"""Enough to describe thousands of pages; MindRecord's default of 16 MB would dominate a small shard."""
PART = ".part"
"""Directory of the shard being written."""
MIN_PAGE, MAX_PAGE, USUAL_PAGE = 1 << 15, 1 << 28, 1 << 25
SCHEMA = {"data": {"type": "bytes"}, "label": {"type": "int32"}, "name": {"type": "string"}}


class PackError(Exception):
    """A shard that cannot be written; one line."""


class Unreadable(Exception):
    """Images that cannot be decoded, relative to the root."""

    def __init__(self, paths: list[str]) -> None:
        super().__init__(", ".join(paths))
        self.paths = paths


@dataclass(frozen=True)
class ShardPlan:
    """The samples of one shard: its file name, paths relative to the root, classes, sizes in bytes."""

    file: str
    paths: Sequence[str]
    labels: Sequence[int]
    sizes: Sequence[int]

    @property
    def page_bytes(self) -> int:
        """The smallest page that holds the largest sample, or all of them."""
        needed = max(2 * max(self.sizes), min(sum(self.sizes), USUAL_PAGE)) + MIN_PAGE
        return 1 << (needed - 1).bit_length()

    @property
    def disk_bytes(self) -> int:
        """Approximate size of the shard on disk."""
        return HEADER_BYTES + 2 * self.page_bytes + sum(self.sizes)


def write(
    part: ShardPlan, *, root: Path, out: Path, skip: bool, pool: ThreadPoolExecutor, advance: Callable[[int], None]
) -> Shard:
    """Write a shard in a temporary directory, read it back and move it into `out`, complete or not at all.

    Raises `PackError`, `OSError`, and `Unreadable` unless `skip`.
    """
    room = out / PART  # a directory: MindRecord writes the file's name into the file
    room.mkdir(exist_ok=True)
    for leftover in room.iterdir():
        leftover.unlink()
    path = room / part.file
    kept, crcs, skipped = _fill(path, part, root=root, skip=skip, pool=pool, advance=advance)
    table = _index(path, [part.labels[place] for place in kept], [as_utf8(part.paths[place]) for place in kept], crcs)
    index = path.with_suffix(".npy")
    np.save(index, table)
    database = path.with_name(f"{path.name}.db")
    files = [packed_file(file) for file in (path, database, index)]
    for file in (path, database, index):
        file.chmod(index.stat().st_mode)  # MindRecord makes its files readable only by their owner
        with file.open("rb") as opened:
            os.fsync(opened.fileno())
        file.replace(out / file.name)
    fsync_dir(out)
    data = files[0].model_dump()
    return Shard(**data, count=len(kept), db=files[1], index=files[2], skipped=tuple(map(as_utf8, skipped)))


def _fill(
    path: Path, part: ShardPlan, *, root: Path, skip: bool, pool: ThreadPoolExecutor, advance: Callable[[int], None]
) -> tuple[list[int], list[int], list[str]]:
    """Write the samples; returns their places in the part, their checksums, and the paths of skipped images."""
    if part.page_bytes > MAX_PAGE:
        largest = part.paths[int(np.argmax(part.sizes))]
        raise PackError(f"{root / largest} has {max(part.sizes)} bytes, too many for a MindRecord page")
    os.environ.setdefault("GLOG_v", "4")  # MindSpore's errors are reported as PackError
    from mindspore.mindrecord import FileWriter  # takes seconds
    from mindspore.mindrecord.common.exceptions import MindRecordException

    kept: list[int] = []
    crcs: list[int] = []
    skipped: list[str] = []
    try:
        writer = FileWriter(str(path), shard_num=1)
        writer.set_header_size(HEADER_BYTES)
        writer.set_page_size(part.page_bytes)
        writer.add_schema(SCHEMA, "images of one split, in the order of a scan")
        batches = [range(first, min(first + BATCH, len(part.paths))) for first in range(0, len(part.paths), BATCH)]
        ahead = [pool.submit(_read, root / part.paths[place]) for place in batches[0]]
        for number, places in enumerate(batches):
            contents = [future.result() for future in ahead]
            following = batches[number + 1] if number + 1 < len(batches) else ()
            ahead = [pool.submit(_read, root / part.paths[place]) for place in following]
            broken = [part.paths[place] for place, data in zip(places, contents, strict=True) if data is None]
            if broken and not skip:
                raise Unreadable(broken)
            skipped += broken
            rows = []
            for place, data in zip(places, contents, strict=True):
                if data is not None:
                    kept.append(place)
                    crcs.append(zlib.crc32(data))
                    rows.append({"data": data, "label": part.labels[place], "name": as_utf8(part.paths[place])})
            if rows:
                writer.write_raw_data(rows)
            advance(len(places))
        if not kept:
            raise PackError(f"none of the {len(part.paths)} images of {part.file} can be decoded; use fewer --shards")
        writer.commit()
    except (MindRecordException, RuntimeError) as error:
        raise PackError(f"{path} cannot be written: {_reason(error)}") from error
    return kept, crcs, skipped


def _reason(error: Exception) -> str:
    """The informative line of MindSpore's message."""
    lines = str(error).strip().splitlines()
    marked = [line.removeprefix("[ERROR]").strip() for line in lines if line.startswith("[ERROR]")]
    return (marked or lines or [type(error).__name__])[0].rstrip(".")


def _read(path: Path) -> bytes | None:
    """The file's content; None if it cannot be decoded completely."""
    data = path.read_bytes()
    return None if is_broken(data) else data


def _index(path: Path, labels: Sequence[int], names: Sequence[str], crcs: Sequence[int]) -> NDArray[Any]:
    """(n,) rows of `INDEX`: where the bytes of each sample are; raises `PackError` if they differ from those written.

    MindRecord puts page p at header + p * page size; its database holds the page and offset at which a sample begins.
    8 bytes of length precede the data. True for 2.10; reading back verifies it.
    """
    with path.open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        with closing(sqlite3.connect(f"file:{path}.db?mode=ro", uri=True)) as database:
            query = "select PAGE_ID_BLOB, PAGE_OFFSET_BLOB, name_0 from INDEXES order by ROW_ID"
            rows = database.execute(query).fetchall()
        if [name for _, _, name in rows] != list(names):
            raise PackError(f"{path} cannot be written: the samples read back differ from those written")
        table = np.empty(len(rows), INDEX)
        for number, (page, offset, _) in enumerate(rows):
            begin = header["header_size"] + page * header["page_size"] + offset
            file.seek(begin)
            length = int.from_bytes(file.read(8), "little")
            data = file.read(length) if length < MAX_PAGE else b""
            if zlib.crc32(data) != crcs[number]:
                raise PackError(f"{path} cannot be written: the bytes read back differ from those written")
            table[number] = (begin + 8, length, crcs[number], labels[number])
    return table
