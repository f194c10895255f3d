"""Pixels of one sample: an opened picture to the (size, size, 3) bytes RGB that a row of the batch takes.

What is random is drawn here from the generator that the caller keys by (seed, epoch, index, view), so that a sample has
the same pixels in any process, at any position, after any restart. MindSpore's C++ operators, called with fixed
arguments, do the work where Pillow does not have it or is slower; they are imported when the first one is called.
"""

import math
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from PIL import Image

from mvit.config import AugmentConfig, ColorJitterConfig, CropConfig, ErasingConfig
from mvit.worker.input import policies
from mvit.worker.input.decode import to_rgb


def augment(
    picture: Image.Image,
    config: AugmentConfig,
    *,
    size: int,
    mean: Sequence[float],
    interpolation: str,
    antialias: bool,
    random: np.random.Generator,
) -> np.ndarray:
    """Training view of a picture, which may be opened but not decoded: (size, size, 3) uint8 RGB.

    `mean` is that of red, green and blue, 0 to 1: it fills what geometric operations uncover and what is erased.
    """
    # All keys are drawn, in this order, whatever is switched on: a stage does not move the draws of another.
    crop_key, jitter_key, policy_key, erasing_key = random.integers(0, 2**64, (4, 2), np.uint64)
    flip = random.random() < config.horizontal_flip
    red, green, blue = (round(255 * value) for value in mean)
    resize: dict[str, Any] = {"interpolation": interpolation, "antialias": antialias}
    if config.crop is None:
        image = center(picture, size=size, fraction=1.0, **resize)
    else:
        columns, rows = picture.size
        top, left, height, width = random_crop((rows, columns), config.crop, _generator(crop_key))
        box = (left, top, left + width, top + height)
        # Decoding less is a filter: not for a recipe that has none.
        decoded, box = decode_for(picture, box, size=size) if antialias else (to_rgb(picture), box)
        image = _resize(decoded, (size, size), box=box, **resize)
    if flip:
        image = _flip(image)
    if config.color_jitter is not None:
        image = jitter(image, config.color_jitter, _generator(jitter_key))
    if config.policy is not None:
        random = _generator(policy_key)
        image = np.asarray(
            policies.apply(Image.fromarray(image), config.policy, fill=(red, green, blue), random=random)
        )
    if config.erasing is not None:
        image = erase(image, config.erasing, fill=(red, green, blue), random=_generator(erasing_key))
    return image


def center(picture: Image.Image, *, size: int, fraction: float, interpolation: str, antialias: bool) -> np.ndarray:
    """Evaluation view, the centre of the picture whose short side is size / fraction: (size, size, 3) uint8 RGB.

    The roundings are those of timm and MindCV (short side) and of torchvision (long side, offset of the crop).
    """
    picture = to_rgb(picture)
    columns, rows = picture.size
    short = math.floor(size / fraction + 1e-6)
    scaled = (short, int(short * rows / columns)) if columns <= rows else (int(short * columns / rows), short)
    left, top = round((scaled[0] - size) / 2), round((scaled[1] - size) / 2)
    if antialias:
        # Straight to the crop, which leaves out 23 % of a square picture at 0.875 and 43 % of a 4:3 one. Values differ
        # by rounding, at most 2 of 255; with "nearest", a tie may go to the neighbouring pixel.
        width, height = scaled
        right, bottom = left + size, top + size
        box = (left * columns / width, top * rows / height, right * columns / width, bottom * rows / height)
        return _resize(picture, (size, size), box=box, interpolation=interpolation, antialias=True)
    image = _resize(picture, scaled, box=(0.0, 0.0, columns, rows), interpolation=interpolation, antialias=False)
    return np.ascontiguousarray(image[top : top + size, left : left + size])


def random_crop(shape: Sequence[int], config: CropConfig, random: np.random.Generator) -> tuple[int, int, int, int]:
    """Top, left, height and width of a random resized crop (Szegedy et al., arXiv 1409.4842).

    Area uniform in `scale`, width / height log-uniform in `ratio`; after ten draws that do not fit, the largest centre
    crop within `ratio`.
    """
    drawn = _rectangle(shape, scale=config.scale, ratio=config.ratio, random=random)
    if drawn is not None:
        return drawn
    rows, columns = shape
    ratio = min(max(columns / rows, config.ratio[0]), config.ratio[1])
    width, height = min(columns, max(1, round(rows * ratio))), min(rows, max(1, round(columns / ratio)))
    return (rows - height) // 2, (columns - width) // 2, height, width


def decode_for(
    picture: Image.Image, box: tuple[float, float, float, float], *, size: int
) -> tuple[Image.Image, tuple[float, float, float, float]]:
    """The picture in RGB and the box (left, top, right, bottom) in its pixels.

    A JPEG whose box is at least twice `size` is decoded at 1/2, 1/4 or 1/8, the box staying at least `size` wide and
    high: libjpeg then computes a quarter of the pixels or fewer.
    """
    left, top, right, bottom = box
    full = picture.size
    room = min(right - left, bottom - top) / size
    reduction = next((n for n in (8, 4, 2) if room >= n), 1)
    if reduction > 1:
        picture.draft(None, (full[0] // reduction, full[1] // reduction))
        if picture.size != full:  # other formats, and a JPEG that is decoded already, stay as they are
            left, top, right, bottom = (edge / reduction for edge in box)
    return to_rgb(picture), (left, top, right, bottom)


def jitter(image: np.ndarray, config: ColorJitterConfig, random: np.random.Generator) -> np.ndarray:
    """Changes of colour in random order, as torchvision defines them: (H, W, 3) uint8 -> the same.

    The hue has 255 steps, as that of Pillow, which torchvision takes: both are up to 15 levels from exact arithmetic
    in the strongest colours, 1 on average, and Pillow takes seven times as long.
    """
    vision = _vision()
    brightness, contrast, saturation = (
        random.uniform(1.0 - change, 1.0 + change) for change in (config.brightness, config.contrast, config.saturation)
    )
    changes = (
        (config.brightness, vision.AdjustBrightness, brightness),
        (config.contrast, vision.AdjustContrast, contrast),
        (config.saturation, vision.AdjustSaturation, saturation),
        (config.hue, vision.AdjustHue, random.uniform(-config.hue, config.hue)),
    )
    for position in random.permutation(len(changes)):
        largest, operator, drawn = changes[position]
        if largest > 0.0:
            image = operator(drawn)(image)
    return image


def erase(
    image: np.ndarray, config: ErasingConfig, *, fill: tuple[int, int, int], random: np.random.Generator
) -> np.ndarray:
    """Random erasing (arXiv 1708.04896) of one rectangle, of none if ten draws do not fit: (H, W, 3) uint8."""
    if random.random() >= config.probability:
        return image
    low, high = config.ratio  # of height / width, as the paper has it
    drawn = _rectangle(image.shape[:2], scale=config.scale, ratio=(1.0 / high, 1.0 / low), random=random)
    if drawn is None:
        return image
    top, left, height, width = drawn
    image = image.copy()  # what Pillow hands out is read-only
    if config.fill == "mean":
        patch = np.tile(np.array(fill, np.uint8), (width, 1))  # a row: NumPy writes single pixels 20 times slower
    else:
        patch = random.integers(0, 256, (height, width, 3), np.uint8)
    image[top : top + height, left : left + width] = patch
    return image


def _rectangle(
    shape: Sequence[int], *, scale: tuple[float, float], ratio: tuple[float, float], random: np.random.Generator
) -> tuple[int, int, int, int] | None:
    """Top, left, height and width: area uniform in `scale`, width / height log-uniform in `ratio`; ten attempts."""
    rows, columns = shape
    low, high = math.log(ratio[0]), math.log(ratio[1])
    for _ in range(10):
        area = rows * columns * random.uniform(*scale)
        drawn = math.exp(random.uniform(low, high))
        width, height = round(math.sqrt(area * drawn)), round(math.sqrt(area / drawn))
        if 0 < width <= columns and 0 < height <= rows:
            top = int(random.integers(0, rows - height + 1))
            left = int(random.integers(0, columns - width + 1))
            return top, left, height, width
    return None


def _resize(
    picture: Image.Image,
    size: tuple[int, int],
    *,
    box: tuple[float, float, float, float],
    interpolation: str,
    antialias: bool,
) -> np.ndarray:
    """The box (left, top, right, bottom) of an RGB picture, resized to (width, height): (height, width, 3) uint8."""
    if antialias:
        return np.asarray(picture.resize(size, Image.Resampling[interpolation.upper()], box=box))
    left, top, right, bottom = (round(edge) for edge in box)
    if (left, top, right, bottom) != (0, 0, *picture.size):
        picture = picture.crop((left, top, right, bottom))  # first: what is cut off need not become an array
    image = np.asarray(picture)
    if picture.size == size:
        return image
    return _resize_operator(size, interpolation)(image)


def _flip(image: np.ndarray) -> np.ndarray:
    """Left to right. Pixels move as items of three bytes: a third of the time of reversing (H, W, 3)."""
    return np.ascontiguousarray(image.view("V3")[:, ::-1]).view(np.uint8)


def _generator(key: np.ndarray) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=key))


@cache  # checking its arguments takes half as long as the operator
def _resize_operator(size: tuple[int, int], interpolation: str) -> Any:
    vision = _vision()
    return vision.Resize((size[1], size[0]), vision.Inter[interpolation.upper()])


@cache
def _vision() -> Any:
    import mindspore.dataset.vision as vision  # takes a second, and many recipes need none of it

    return vision
