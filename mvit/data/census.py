"""Census: how many images of each class there are, and what they look like."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from mvit.data.listing import Listing
from mvit.data.sample import File

LOOKED_AT = 500
"""Images that are opened for their size and colour, spread evenly over the training images."""
COLOURED = 8
"""Difference between the channels of a pixel, of 255, up to which it is grey."""


@dataclass(frozen=True)
class Looks:
    """Width and height of an image, and whether one of its pixels has a colour."""

    width: int
    height: int
    is_coloured: bool


@dataclass(frozen=True)
class Census:
    classes: tuple[str, ...]
    train: tuple[int, ...]
    """Images of each class."""
    val: tuple[int, ...]
    looks: tuple[Looks, ...]
    """Of some training images."""

    @property
    def num_train(self) -> int:
        return sum(self.train)

    @property
    def num_val(self) -> int:
        return sum(self.val)

    @property
    def short_side(self) -> int:
        """The median."""
        return round(median(min(one.width, one.height) for one in self.looks))

    @property
    def is_coloured(self) -> bool:
        """Whether more than one image of a hundred is: one logo does not make colour photographs of scans."""
        return sum(one.is_coloured for one in self.looks) > len(self.looks) / 100

    @property
    def smallest(self) -> tuple[str, int]:
        """The class with the fewest training images."""
        return min(zip(self.classes, self.train, strict=True), key=lambda one: one[1])

    @property
    def largest(self) -> tuple[str, int]:
        return max(zip(self.classes, self.train, strict=True), key=lambda one: one[1])


def take(listing: Listing, *, threads: int) -> Census:
    """Count the images of a listing, and look at some; all of them must be decodable."""
    paths = listing.train.paths
    some = [paths[place * len(paths) // LOOKED_AT] for place in range(LOOKED_AT)] if len(paths) > LOOKED_AT else paths
    with ThreadPoolExecutor(threads) as pool:
        looks = tuple(pool.map(_look, [listing.root / path for path in some]))
    return Census(listing.classes, _counts(listing.train.labels, listing), _counts(listing.val.labels, listing), looks)


def _counts(labels: Sequence[int], listing: Listing) -> tuple[int, ...]:
    counts = Counter(labels)
    return tuple(counts[label] for label in range(len(listing.classes)))


def _look(path: Path) -> Looks:
    import numpy as np

    image = File(str(path)).open()
    with image:
        width, height = image.size
        image.draft("RGB", (64, 64))  # a JPEG is decoded at about this size: faster
        pixels = np.asarray(image.convert("RGB"), np.int16)
    return Looks(width, height, bool(np.ptp(pixels, axis=2).max() > COLOURED))
