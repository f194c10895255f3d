"""The samples of a dataset: labels, and for each index a sample that can be opened anywhere."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image

from mvit.config import Cifar10Data, Cifar100Data, Data, DigitsData, ImageFolderData, MindRecordData, SyntheticData
from mvit.data import cifar, imagefolder, mindrecord
from mvit.data.dataset import DIGITS_VAL
from mvit.data.imagefolder import Split, without
from mvit.plan import DatasetFacts
from mvit.worker.input.sample import Array, Blob, File, Raw, Sample
from mvit.worker.input.sampler import generator


class Source(Protocol):
    """One split."""

    labels: np.ndarray  # int32 (samples,)

    def sample(self, index: int) -> Sample: ...


class DataChanged(Exception):
    """The data is not what it was when the run was planned."""


def open_sources(data: Data, facts: DatasetFacts) -> tuple[Source, Source]:
    """Training and validation split.

    Raises `DataChanged` when the fingerprint is not that of the plan, `DatasetError` for data that is gone since.
    """
    match data:
        case DigitsData():
            return _digits(data.image_size)
        case SyntheticData():
            return Synthetic(data, data.num_train, stream=1), Synthetic(data, data.num_val, stream=2)
        case ImageFolderData():
            classes, train, val = imagefolder.scan(data)
            _same(imagefolder.facts_of(data, classes, train, val), facts, data.root)
            return ImageFolder(data.root, without(train, facts.skipped)), ImageFolder(
                data.root, without(val, facts.skipped)
            )
        case MindRecordData():
            manifest = mindrecord.open_manifest(data.root)
            _same(mindrecord.facts_of(manifest), facts, data.root)
            return MindRecord(data.root, manifest.train), MindRecord(data.root, manifest.val)
        case Cifar10Data() | Cifar100Data():
            found = cifar.read(data)
            _same(cifar.facts_of(found), facts, data.root)
            return Cifar(found.layout, found.train), Cifar(found.layout, (found.val,))


def _same(now: DatasetFacts, planned: DatasetFacts, root: str) -> None:
    if now.fingerprint != planned.fingerprint:
        raise DataChanged(f"{root} has changed since the run was planned; start a new run")


class Arrays:
    """Images in memory: (n, H, W, 3) uint8."""

    def __init__(self, images: np.ndarray, labels: np.ndarray) -> None:
        self.images = images
        self.labels = labels.astype(np.int32)

    def sample(self, index: int) -> Array:
        return Array(self.images[index], f"image {index}")


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
    """(8, 8) uint8 -> (size, size, 3) uint8."""
    image = Image.fromarray(grey).resize((size, size), Image.Resampling.BICUBIC)
    return np.repeat(np.asarray(image)[..., None], 3, axis=2)


@dataclass(frozen=True, slots=True, eq=False)
class Drawn:
    """A synthetic image, drawn when it is opened: by a thread of the loader, not by the loop."""

    wave: np.ndarray  # (size, size), shared by the images of a class
    index: int
    stream: int

    @property
    def name(self) -> str:
        return f"synthetic image {self.index}"

    def open(self) -> Image.Image:
        random = generator(0, 0, self.index, stream=self.stream)
        noise = random.integers(-64, 64, (*self.wave.shape, 3), np.int16)
        wave = (128 + 48 * self.wave).astype(np.int16)
        return Image.fromarray((noise + wave[..., None]).astype(np.uint8))


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

    def sample(self, index: int) -> Drawn:
        return Drawn(self.waves[self.labels[index]], int(index), self.stream)


class ImageFolder:
    """Image files."""

    def __init__(self, root: str, split: Split) -> None:
        self.root, self.paths = root, split.paths
        self.labels = np.asarray(split.labels, np.int32)

    def sample(self, index: int) -> File:
        return File(f"{self.root}/{self.paths[index]}")  # joined as text: a Path for each image costs 25 us


class MindRecord:
    """Encoded images in shards."""

    def __init__(self, root: str, shards: tuple[mindrecord.Shard, ...]) -> None:
        """Raises `DatasetError` for an index that is damaged."""
        self.paths = [str(Path(root) / shard.file) for shard in shards]
        self.firsts = np.cumsum([0, *(shard.count for shard in shards)])
        self.index = np.concatenate([mindrecord.read_index(Path(root), shard) for shard in shards])
        self.labels = self.index["label"].astype(np.int32)

    def sample(self, index: int) -> Blob:
        shard = int(np.searchsorted(self.firsts, index, side="right")) - 1
        path, row = self.paths[shard], self.index[index]
        name = f"{path} sample {index - self.firsts[shard]}"
        return Blob(path, int(row["offset"]), int(row["length"]), name, int(row["crc"]))


class Cifar:
    """Records of CIFAR's binary files."""

    def __init__(self, layout: cifar.Layout, files: tuple[cifar.File, ...]) -> None:
        self.layout, self.paths = layout, [str(file.path) for file in files]
        self.firsts = np.cumsum([0, *(len(file.labels) for file in files)])
        self.labels = np.frombuffer(b"".join(file.labels for file in files), np.uint8).astype(np.int32)

    def sample(self, index: int) -> Raw:
        file = int(np.searchsorted(self.firsts, index, side="right")) - 1
        record = int(index - self.firsts[file])
        offset = record * self.layout.record + self.layout.label_bytes
        return Raw(self.paths[file], offset, f"{self.paths[file]} record {record}")
