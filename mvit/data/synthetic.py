"""Synthetic images: noise over a grating whose angle and frequency depend on the class."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from mvit.config import SyntheticData
from mvit.data.survey import Survey, make_facts
from mvit.plan import DatasetFacts

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image


@dataclass(frozen=True)
class Synthetic:
    data: SyntheticData

    def survey(self) -> Survey:
        data = self.data
        names = [f"class_{index}" for index in range(data.classes)]
        content = [f"{data.classes} {data.num_train} {data.num_val} {data.image_size}"]
        return Survey(make_facts(num_train=data.num_train, num_val=data.num_val, class_names=names, content=content))

    def splits(self, _facts: DatasetFacts, _index: Path, /) -> tuple[Drawings, Drawings]:
        return Drawings(self.data, self.data.num_train, stream=1), Drawings(self.data, self.data.num_val, stream=2)


class Drawings:
    """One split; each image is a function of its index and of the split's `stream` of random numbers."""

    in_memory = True

    def __init__(self, data: SyntheticData, num_samples: int, *, stream: int) -> None:
        import numpy as np  # here and below: the parent does not need it

        self.labels = (np.arange(num_samples) % data.classes).astype(np.int32)
        self.size, self.stream = data.image_size, stream
        rows, columns = np.mgrid[0 : self.size, 0 : self.size].astype(np.float32) / self.size
        angles = np.pi * np.arange(data.classes) / data.classes
        self.waves = [
            np.sin(2 * np.pi * (3 + k % 3) * (rows * np.sin(a) + columns * np.cos(a))) for k, a in enumerate(angles)
        ]

    def sample(self, index: int) -> Drawing:
        return Drawing(self.waves[self.labels[index]], int(index), self.stream)


@dataclass(frozen=True, slots=True, eq=False)
class Drawing:
    """One image, drawn when it is opened: by a thread of the loader, not by the training loop."""

    wave: NDArray[np.float64]
    """(size, size), shared by the images of a class"""
    index: int
    stream: int

    @property
    def name(self) -> str:
        return f"synthetic image {self.index}"

    def open(self) -> Image.Image:
        import numpy as np
        from PIL import Image

        key = np.array([0, (self.stream << 48) | self.index], np.uint64)
        random = cast(Any, np.random.Generator(np.random.Philox(key=key)))  # NumPy's types of `integers` are incomplete
        noise: NDArray[np.int16] = random.integers(-64, 64, (*self.wave.shape, 3), np.int16)
        wave = (128 + 48 * self.wave).astype(np.int16)
        return Image.fromarray((noise + wave[..., None]).astype(np.uint8))
