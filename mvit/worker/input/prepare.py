"""Pixels of a few samples, made by a thread or by a process of its own: what the loader hands out.

Processes import this module and nothing that opens a device; MindSpore's image operators only where they are asked for.
"""

import mmap
import os
import signal
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from mvit.config import AugmentConfig
from mvit.data.sample import Sample
from mvit.errors import first_line
from mvit.files import as_utf8
from mvit.process import wait_for_end
from mvit.worker.input.sampler import view_generator
from mvit.worker.input.transforms import augment, center


class UnreadableImage(Exception):
    """An image that cannot be decoded; the message names it."""


@dataclass(frozen=True)
class Recipe:
    """What is done to the images of one batch; `epoch` None asks for the evaluation view, which is not augmented."""

    augment: AugmentConfig | None
    image_size: int
    mean: tuple[float, float, float]
    eval_crop_fraction: float
    interpolation: str
    antialias: bool
    seed: int
    epoch: int | None
    reports_unreadable: bool = False
    """Whether an image that cannot be decoded becomes a black one and a message, instead of an exception."""


@dataclass(frozen=True)
class View:
    """One view of a sample, and the index and number that key its augmentation."""

    sample: Sample
    index: int
    number: int


@dataclass(frozen=True)
class Place:
    """Where rows go: shared memory of another process, by its pid and file descriptor, at a byte offset."""

    pid: int
    descriptor: int
    offset: int


def prepare(recipe: Recipe, views: Sequence[View], rows: np.ndarray) -> dict[int, str]:
    """Fill `rows` (n, S, S, 3) uint8, one image each; returns why by the index of each that is reported."""
    unreadable: dict[int, str] = {}
    for row, view in zip(rows, views, strict=True):
        try:
            row[...] = _image(recipe, view)
        except UnreadableImage as error:
            if not recipe.reports_unreadable:
                raise
            row[...] = 0
            unreadable[view.index] = first_line(error.__cause__ or error)
    return unreadable


def prepare_shared(recipe: Recipe, views: Sequence[View], place: Place) -> dict[int, str]:
    """The same into the memory of the process that asked."""
    size = recipe.image_size
    memory = _memory(place)
    rows = np.frombuffer(memory, np.uint8, len(views) * size * size * 3, place.offset)
    return prepare(recipe, views, rows.reshape(len(views), size, size, 3))


def _image(recipe: Recipe, view: View) -> np.ndarray:
    try:
        with view.sample.open() as picture:
            resize = {"interpolation": recipe.interpolation, "antialias": recipe.antialias}
            if recipe.epoch is None:
                return center(picture, size=recipe.image_size, fraction=recipe.eval_crop_fraction, **resize)
            assert recipe.augment is not None
            random = view_generator(recipe.seed, epoch=recipe.epoch, index=view.index, view=view.number)
            return augment(picture, recipe.augment, size=recipe.image_size, mean=recipe.mean, random=random, **resize)
    except Exception as error:  # Pillow raises many kinds on files that are none
        raise UnreadableImage(f"{as_utf8(view.sample.name)} cannot be decoded: {first_line(error)}") from error


_mapped: dict[tuple[int, int], mmap.mmap] = {}


def _memory(place: Place) -> mmap.mmap:
    key = (place.pid, place.descriptor)
    if key not in _mapped:
        with open(f"/proc/{place.pid}/fd/{place.descriptor}", "r+b") as file:  # noqa: PTH123 (a link to a memfd)
            _mapped[key] = mmap.mmap(file.fileno(), 0)
    return _mapped[key]


def start(owner: int) -> None:
    """Set up a process: it ends with its owner, leaves Ctrl-C to it, and gives way to it.

    The threads of a network on a CPU wait for one another at every operator, so that preempting one delays all. At the
    lowest priority, images are prepared while those threads wait; when no batch is ready, the network waits, and its
    cores are free. Other programs on the same cores come first as well.
    """
    os.nice(19)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Its parent is multiprocessing's fork server, which a kill of the owner does not reach.
    threading.Thread(target=_end_with, args=(owner,), daemon=True).start()


def _end_with(owner: int) -> None:
    wait_for_end(owner)
    os._exit(1)


def ready() -> Literal[True]:
    """Nothing: a process that answers has started."""
    return True
