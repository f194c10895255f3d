"""Digits: scikit-learn's handwritten ones, enlarged."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from mvit.config import DigitsData
from mvit.data.sample import Array
from mvit.data.survey import Survey, make_facts
from mvit.plan import DatasetFacts

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

NUM_TRAIN, NUM_VAL = 1437, 360


@dataclass(frozen=True)
class Digits:
    data: DigitsData

    def survey(self) -> Survey:
        names = [str(digit) for digit in range(10)]
        content = ["scikit-learn digits, split 0"]
        return Survey(make_facts(num_train=NUM_TRAIN, num_val=NUM_VAL, class_names=names, content=content))

    def splits(self, _facts: DatasetFacts, _index: Path, /) -> tuple[Enlarged, Enlarged]:
        return digits(self.data.image_size)


def digits(size: int) -> tuple[Enlarged, Enlarged]:
    """Hold out every fifth digit, sorted by class and shuffled within each class: 360, in proportion."""
    import numpy as np

    table = read_table()
    pixels, target = table[:, :64].reshape(-1, 8, 8), table[:, 64]
    order = np.random.Generator(np.random.Philox(key=0)).permutation(len(target))
    order = order[np.argsort(target[order], kind="stable")]
    held_out = np.arange(len(order)) % 5 == 0
    assert held_out.sum() == NUM_VAL
    grey = (pixels * (255.0 / 16.0)).round().astype(np.uint8)
    images = np.stack([_enlarge(image, size) for image in grey])
    labels = target.astype(np.int32)
    train, val = order[~held_out], order[held_out]
    return Enlarged(images[train], labels[train]), Enlarged(images[val], labels[val])


def read_table() -> NDArray[np.uint8]:
    """The table that scikit-learn carries: (1797, 65), 8x8 pixels of 0 to 16 and the digit.

    Importing scikit-learn to load it takes seconds.
    """
    import numpy as np

    package = find_spec("sklearn")
    assert package, "scikit-learn is not installed"
    assert package.origin
    path = Path(package.origin).parent / "datasets" / "data" / "digits.csv.gz"
    return np.loadtxt(path, delimiter=",", dtype=np.uint8)


class Enlarged:
    """One split: (n, S, S, 3) uint8."""

    in_memory = True

    def __init__(self, images: NDArray[np.uint8], labels: NDArray[np.int32]) -> None:
        self.images, self.labels = images, labels

    def sample(self, index: int) -> Array:
        return Array(self.images[index], f"image {index}")


def _enlarge(grey: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """(8, 8) uint8 -> (size, size, 3) uint8."""
    import numpy as np
    from PIL import Image

    image = Image.fromarray(grey).resize((size, size), Image.Resampling.BICUBIC)
    return np.repeat(np.asarray(image)[..., None], 3, axis=2)
