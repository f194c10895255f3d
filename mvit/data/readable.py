"""Readability of image files: each is decoded once, as long as it does not change."""

from __future__ import annotations

import errno
import hashlib
import io
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

from mvit.data.listing import Split
from mvit.data.sample import DECODABLE
from mvit.files import read_json, write_json

SLICE = 256
"""Images per task: one task for each of a million images would take gigabytes."""


def unreadable(root: Path, paths: Sequence[str], *, threads: int) -> list[str]:
    """The paths of images that cannot be decoded completely, in order; raises `OSError` for one that cannot be read."""
    slices = [paths[first : first + SLICE] for first in range(0, len(paths), SLICE)]

    def broken_of(some: Sequence[str]) -> list[str]:
        return [path for path in some if is_broken(root / path)]

    with ThreadPoolExecutor(threads) as pool:
        return [path for broken in pool.map(broken_of, slices) for path in broken]


def unreadable_cached(
    root: Path, splits: Sequence[Split], *, folder: Path, threads: int, before: Callable[[int], None]
) -> list[str]:
    """The same for whole splits, cached in a file in `folder`.

    `before` is called with the number of images if they must be decoded. The file name is a hash of their paths, sizes
    and times: if one differs, all are decoded again.
    """
    paths = [path for split in splits for path in split.paths]
    file = folder / f"{_key(root, splits)}.json"
    all_paths = frozenset(paths)
    try:
        content = read_json(file)
        broken = content["unreadable"]
        if content["images"] == len(paths) and all(path in all_paths for path in broken):
            return list(broken)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        pass  # missing, or damaged
    before(len(paths))
    broken = unreadable(root, paths, threads=threads)
    with suppress(OSError, UnicodeEncodeError):  # the code that needs the folder reports that it cannot be written
        folder.mkdir(parents=True, exist_ok=True)
        write_json(file, {"images": len(paths), "unreadable": broken})
    return broken


def _key(root: Path, splits: Sequence[Split]) -> str:
    digest = hashlib.sha256(
        f"{root.resolve()} {DECODABLE} pillow {version('pillow')}\n".encode(errors="surrogateescape")
    )
    for split in splits:
        for path, size, mtime_ns in zip(split.paths, split.sizes, split.mtimes_ns, strict=True):
            digest.update(f"{path} {size} {mtime_ns}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()


def is_broken(image: Path | bytes) -> bool:
    """Whether a file, or its content, cannot be decoded completely; raises `OSError` if it cannot be read."""
    from PIL import Image  # a dry run does not need it

    try:
        # `format` is not checked: Pillow calls a JPEG followed by a second picture an MPO, and reads it all the same.
        opened = Image.open(io.BytesIO(image) if isinstance(image, bytes) else image, formats=DECODABLE)
        with opened:
            # A JPEG is read completely, but scaled down: faster.
            opened.draft("RGB", (max(1, opened.width // 8), max(1, opened.height // 8)))
            opened.load()
    except MemoryError:
        raise
    except Exception as error:  # Pillow raises many types for damaged files: each means unreadable
        # The system's, which says nothing of the content; but EINVAL is of a damaged offset.
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            if error.filename is None and isinstance(image, Path):
                error.filename = str(image)
            raise
        return True
    return False
