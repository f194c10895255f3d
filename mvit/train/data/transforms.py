"""Pixels of one sample: decoded image to network input.

The operators are MindSpore's C++ ones with fixed arguments; what is random is drawn here, from a generator keyed by
(seed, epoch, index), so that a sample has the same pixels in any process, at any position, after any restart.
"""

import math
from collections.abc import Sequence

import mindspore.dataset.vision as vision
import numpy as np

from mvit.config import AugmentConfig, CropConfig

INTERPOLATION = {
    "nearest": vision.Inter.NEAREST,
    "bilinear": vision.Inter.BILINEAR,
    "bicubic": vision.Inter.BICUBIC,
}


def augment(image: np.ndarray, config: AugmentConfig, *, size: int, random: np.random.Generator) -> np.ndarray:
    """Training view of an image: (H, W, 3) uint8 -> (size, size, 3) uint8."""
    interpolation = INTERPOLATION[config.interpolation]
    if config.crop is None:
        image = center(image, size=size, fraction=1.0, interpolation=interpolation)
    else:
        top, left, height, width = random_crop(image.shape[:2], config.crop, random)
        image = vision.Crop((top, left), (height, width))(image)
        image = vision.Resize((size, size), interpolation)(image)
    if random.random() < config.horizontal_flip:
        image = image[:, ::-1]
    return image


def random_crop(shape: Sequence[int], config: CropConfig, random: np.random.Generator) -> tuple[int, int, int, int]:
    """Top, left, height and width of a random resized crop (Szegedy et al., arXiv 1409.4842).

    Area uniform in `scale`, width / height log-uniform in `ratio`; after ten draws that do not fit, the largest centre
    crop within `ratio`.
    """
    rows, columns = shape
    low, high = math.log(config.ratio[0]), math.log(config.ratio[1])
    for _ in range(10):
        area = rows * columns * random.uniform(*config.scale)
        ratio = math.exp(random.uniform(low, high))
        width, height = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < width <= columns and 0 < height <= rows:
            top = int(random.integers(0, rows - height + 1))
            left = int(random.integers(0, columns - width + 1))
            return top, left, height, width
    ratio = min(max(columns / rows, config.ratio[0]), config.ratio[1])
    width, height = min(columns, max(1, round(rows * ratio))), min(rows, max(1, round(columns / ratio)))
    return (rows - height) // 2, (columns - width) // 2, height, width


def center(image: np.ndarray, *, size: int, fraction: float, interpolation: vision.Inter) -> np.ndarray:
    """Evaluation view: the short side resized to size / fraction, then the centre: (H, W, 3) -> (size, size, 3)."""
    short = round(size / fraction)
    rows, columns = image.shape[:2]
    scale = short / min(rows, columns)
    rows, columns = max(short, round(rows * scale)), max(short, round(columns * scale))
    if (rows, columns) != image.shape[:2]:
        image = vision.Resize((rows, columns), interpolation)(image)
    top, left = (rows - size) // 2, (columns - size) // 2
    return image[top : top + size, left : left + size]


def to_input(images: np.ndarray, *, mean: Sequence[float], std: Sequence[float], channel_order: str) -> np.ndarray:
    """Normalised network input: (B, H, W, 3) uint8 RGB -> (B, 3, H, W) float32."""
    if channel_order == "bgr":
        images = images[..., ::-1]
    scale = (1.0 / (255.0 * np.asarray(std))).astype(np.float32)
    shift = (np.asarray(mean) / np.asarray(std)).astype(np.float32)
    return np.ascontiguousarray((images * scale - shift).transpose(0, 3, 1, 2))
