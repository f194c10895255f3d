"""One sample: where its image is. Small, picklable, and opened by whichever process prepares it."""

import io
import os
import zlib
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from PIL import Image

from mvit.data.cifar import PIXELS, SIDE
from mvit.data.readable import DECODABLE


class Sample(Protocol):
    """One image that is not read yet."""

    @property
    def name(self) -> str:
        """What a message calls it: a path, or shard and number."""
        ...

    def open(self) -> Image.Image:
        """The image with its header read; a JPEG is not decoded yet, so that `Image.draft` still helps.

        To be closed by the caller. Raises what Pillow and the system raise, without the name.
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
        return Image.open(self.path, formats=DECODABLE)


@dataclass(frozen=True, slots=True)
class Blob:
    """An encoded image inside a larger file, `length` bytes from `offset`, and their zlib.crc32."""

    path: str
    offset: int
    length: int
    name: str
    crc: int

    def open(self) -> Image.Image:
        data = _read(self.path, self.offset, self.length)
        # A flipped bit in a JPEG mostly decodes, to another picture.
        if zlib.crc32(data) != self.crc:
            raise OSError("its bytes are not those that were packed (checksum differs)")
        return Image.open(io.BytesIO(data), formats=DECODABLE)


@dataclass(frozen=True, slots=True)
class Raw:
    """The pixels of a CIFAR record: 3072 bytes from `offset`, channel first."""

    path: str
    offset: int
    name: str

    def open(self) -> Image.Image:
        pixels = np.frombuffer(_read(self.path, self.offset, PIXELS), np.uint8).reshape(3, SIDE, SIDE)
        return Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0)))


@dataclass(frozen=True, slots=True, eq=False)
class Array:
    """An image in memory: (H, W, 3) uint8."""

    pixels: np.ndarray
    name: str

    def open(self) -> Image.Image:
        return Image.fromarray(self.pixels)


def _read(path: str, offset: int, length: int) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        data = os.pread(descriptor, length, offset)
    finally:
        os.close(descriptor)
    if len(data) != length:
        raise OSError("its file ends before it")
    return data
