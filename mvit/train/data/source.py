"""The samples of a dataset: labels, and the decoded image of each index."""

from pathlib import Path
from typing import Protocol

import mindspore.dataset.vision as vision
import numpy as np

from mvit.config import Data, DigitsData, ImageFolderData, SyntheticData
from mvit.dataset import DIGITS_VAL, Split, look, scan, without
from mvit.plan import DatasetFacts
from mvit.train.data.sampler import generator
from mvit.train.data.transforms import center


class Source(Protocol):
    """One split."""

    labels: np.ndarray  # int32 (samples,)

    def image(self, index: int) -> np.ndarray:
        """(H, W, 3) uint8, RGB."""
        ...


class DataChanged(Exception):
    """The data is not what it was when the run was planned."""


class UnreadableImage(Exception):
    """An image that cannot be decoded; the message names its path."""


def open_sources(data: Data, facts: DatasetFacts) -> tuple[Source, Source]:
    """Training and validation split; raises `DataChanged` when the fingerprint is not that of the plan."""
    match data:
        case DigitsData():
            return _digits(data.image_size)
        case SyntheticData():
            return Synthetic(data, data.num_train, stream=1), Synthetic(data, data.num_val, stream=2)
        case ImageFolderData():
            if look(data).fingerprint != facts.fingerprint:
                raise DataChanged(f"{data.root} has changed since the run was planned; start a new run")
            _, train, val = scan(data)
            root = Path(data.root)
            return ImageFolder(root, without(train, facts.skipped)), ImageFolder(root, without(val, facts.skipped))


class Arrays:
    """Images in memory."""

    def __init__(self, images: np.ndarray, labels: np.ndarray) -> None:
        self.images = images
        self.labels = labels.astype(np.int32)

    def image(self, index: int) -> np.ndarray:
        return self.images[index]


def _digits(size: int) -> tuple[Arrays, Arrays]:
    """Every fifth of the digits sorted by class, shuffled within a class, is held out: 360, in proportion."""
    from sklearn.datasets import load_digits  # takes a second

    digits = load_digits()
    order = np.random.Generator(np.random.Philox(key=0)).permutation(len(digits.target))
    order = order[np.argsort(digits.target[order], kind="stable")]
    held_out = np.arange(len(order)) % 5 == 0
    assert held_out.sum() == DIGITS_VAL
    grey = (digits.images * (255.0 / 16.0)).round().astype(np.uint8)  # (1797, 8, 8), stored as 0 to 16
    images = np.stack([_enlarge(image, size) for image in grey])

    def part(chosen: np.ndarray) -> Arrays:
        return Arrays(images[order[chosen]], digits.target[order[chosen]])

    return part(~held_out), part(held_out)


def _enlarge(grey: np.ndarray, size: int) -> np.ndarray:
    image = np.repeat(grey[..., None], 3, axis=2)
    return center(image, size=size, fraction=1.0, interpolation=vision.Inter.BICUBIC)


class Synthetic:
    """Noise over a grating whose angle and frequency tell the class; each image a function of its index."""

    def __init__(self, data: SyntheticData, num_samples: int, *, stream: int) -> None:
        self.labels = (np.arange(num_samples) % data.classes).astype(np.int32)
        self.size, self.stream = data.image_size, stream
        rows, columns = np.mgrid[0 : self.size, 0 : self.size].astype(np.float32) / self.size
        angles = np.pi * np.arange(data.classes) / data.classes
        self.waves = [
            np.sin(2 * np.pi * (3 + k % 3) * (rows * np.sin(a) + columns * np.cos(a))) for k, a in enumerate(angles)
        ]

    def image(self, index: int) -> np.ndarray:
        random = generator(0, 0, index, stream=self.stream)
        noise = random.integers(-64, 64, (self.size, self.size, 3), np.int16)
        wave = (128 + 48 * self.waves[self.labels[index]]).astype(np.int16)
        return (noise + wave[..., None]).astype(np.uint8)


class ImageFolder:
    """Files decoded by MindSpore's C++ operators."""

    def __init__(self, root: Path, split: Split) -> None:
        self.root, self.paths = root, split.paths
        self.labels = np.asarray(split.labels, np.int32)
        self.decode = vision.Decode()

    def image(self, index: int) -> np.ndarray:
        path = self.root / self.paths[index]
        try:
            return self.decode(np.fromfile(path, np.uint8))
        except (RuntimeError, ValueError, TypeError, OSError) as error:
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise UnreadableImage(f"{path} cannot be decoded: {reason}") from error
