"""Which images can be read: found by decoding each, once for a folder that stays as it is."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

from mvit.data.imagefolder import Split
from mvit.files import read_json, write_json

DECODABLE = ("JPEG", "PNG", "BMP", "TIFF", "WEBP")
"""What Pillow is asked to read, whatever the file is called; it could read more."""

SLICE = 256
"""Images of one task: a task for each of a million would take gigabytes."""


def unreadable(root: Path, paths: Sequence[str], *, threads: int) -> list[str]:
    """The paths whose image does not decode to its end, in order."""
    slices = [paths[first : first + SLICE] for first in range(0, len(paths), SLICE)]

    def broken_of(some: Sequence[str]) -> list[str]:
        return [path for path in some if is_broken(root / path)]

    with ThreadPoolExecutor(threads) as pool:
        return [path for broken in pool.map(broken_of, slices) for path in broken]


def unreadable_cached(
    root: Path, splits: Sequence[Split], *, folder: Path, threads: int, before: Callable[[int], None]
) -> list[str]:
    """The same of whole splits, from a file in `folder` where they were read before.

    `before` is called with the number of images when they must be decoded. The file is named by paths, sizes and times
    of the images: where one differs, all are read again.
    """
    paths = [path for split in splits for path in split.paths]
    file = folder / f"{_key(root, splits)}.json"
    known = frozenset(paths)
    try:
        content = read_json(file)
        found = content["unreadable"]
        if content["images"] == len(paths) and all(path in known for path in found):
            return list(found)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        pass  # not there, or damaged
    before(len(paths))
    found = unreadable(root, paths, threads=threads)
    with suppress(OSError, UnicodeEncodeError):  # a folder that cannot be written is told of by what needs it
        folder.mkdir(parents=True, exist_ok=True)
        write_json(file, {"images": len(paths), "unreadable": found})
    return found


def _key(root: Path, splits: Sequence[Split]) -> str:
    digest = hashlib.sha256(
        f"{root.resolve()} {DECODABLE} pillow {version('pillow')}\n".encode(errors="surrogateescape")
    )
    for split in splits:
        for path, size, mtime_ns in zip(split.paths, split.sizes, split.mtimes_ns, strict=True):
            digest.update(f"{path} {size} {mtime_ns}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()


def is_broken(image: Path | bytes) -> bool:
    """Whether a file, or what one holds, does not decode to its end."""
    from PIL import Image  # only images of a folder need it

    try:
        # No look at `format`: a JPEG with a second picture behind the first is an MPO to Pillow, and read the same.
        with Image.open(io.BytesIO(image) if isinstance(image, bytes) else image, formats=DECODABLE) as opened:
            # A JPEG is read whole but scaled: faster.
            opened.draft("RGB", (max(1, opened.width // 8), max(1, opened.height // 8)))
            opened.load()
    except Exception:  # noqa: BLE001  Pillow raises many kinds on files that are none: each means unreadable
        return True
    return False
