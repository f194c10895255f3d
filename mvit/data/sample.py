"""Sample: the location of one image. Small, picklable, and opened by the process that prepares it."""

from __future__ import annotations

import io
import os
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image

DECODABLE = ("JPEG", "PNG", "BMP", "TIFF", "WEBP")
"""The formats that Pillow may try, whatever the file name; it supports more."""


class Sample(Protocol):
    """One image that has not been read yet."""

    @property
    def name(self) -> str:
        """Its name in messages: a path, or a shard and a number."""
        ...

    def open(self) -> Image.Image:
        """The image with its header read; a JPEG is not decoded yet, so that `Image.draft` still helps.

        The caller closes it. Errors of Pillow and the system pass through; they lack the name.
        """
        ...


@dataclass(frozen=True, slots=True)
class File:
    """An image file."""

    path: str

    @property
    def name(self) -> str:
        return self.path

    def open(self) -> Image.Image:
        from PIL import Image  # here and below: the parent does not need it

        return Image.open(self.path, formats=DECODABLE)


@dataclass(frozen=True, slots=True)
class Blob:
    """An encoded image inside a larger file: `length` bytes from `offset`, and their zlib.crc32."""

    path: str
    offset: int
    length: int
    name: str
    crc: int

    def open(self) -> Image.Image:
        from PIL import Image

        data = read_bytes(self.path, self.offset, self.length)
        # A JPEG with a flipped bit usually decodes, but to a different picture.
        if zlib.crc32(data) != self.crc:
            raise OSError("checksum mismatch: the packed bytes have changed")
        return Image.open(io.BytesIO(data), formats=DECODABLE)


@dataclass(frozen=True, slots=True, eq=False)
class Array:
    """An image in memory: (H, W, 3) uint8."""

    pixels: NDArray[np.uint8]
    name: str

    def open(self) -> Image.Image:
        from PIL import Image

        return Image.fromarray(self.pixels)


def read_bytes(path: str, offset: int, length: int) -> bytes:
    """Part of a file; raises `OSError`, also if the file is too short."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        data = os.pread(descriptor, length, offset)
    finally:
        os.close(descriptor)
    if len(data) != length:
        raise OSError("the file is truncated")
    return data
