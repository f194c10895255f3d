"""Policies: sequences of image operations, drawn by the rules of RandAugment, TrivialAugment or AutoAugment.

`draw` says which operations and how strong, `operate` is one of them on Pillow's image. A strength is a share, -1 to 1,
of the operation's reach; one that has no direction takes its magnitude. Reaches, steps of strength and the resampling
of geometric operations (nearest, whatever data.interpolation says) are those of torchvision, the common reference.
"""

import math

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from mvit.config import AutoAugmentPolicy, Policy, RandAugmentPolicy, TrivialAugmentPolicy

Drawn = list[tuple[str, float]]
"""Operations and their strengths, in order."""

OPERATIONS = (
    "identity",
    "autocontrast",
    "equalize",
    "rotate",
    "solarize",
    "color",
    "posterize",
    "contrast",
    "brightness",
    "sharpness",
    "shear_x",
    "shear_y",
    "translate_x",
    "translate_y",
)
"""The 14 of RandAugment (section 3) and of TrivialAugment; AutoAugment has "invert" too."""

SUB_POLICIES = (
    (("posterize", 0.4, 8), ("rotate", 0.6, 9)),
    (("solarize", 0.6, 5), ("autocontrast", 0.6, 0)),
    (("equalize", 0.8, 0), ("equalize", 0.6, 0)),
    (("posterize", 0.6, 7), ("posterize", 0.6, 6)),
    (("equalize", 0.4, 0), ("solarize", 0.2, 4)),
    (("equalize", 0.4, 0), ("rotate", 0.8, 8)),
    (("solarize", 0.6, 3), ("equalize", 0.6, 0)),
    (("posterize", 0.8, 5), ("equalize", 1.0, 0)),
    (("rotate", 0.2, 3), ("solarize", 0.6, 8)),
    (("equalize", 0.6, 0), ("posterize", 0.4, 6)),
    (("rotate", 0.8, 8), ("color", 0.4, 0)),
    (("rotate", 0.4, 9), ("equalize", 0.6, 0)),
    (("equalize", 0.0, 0), ("equalize", 0.8, 0)),
    (("invert", 0.6, 0), ("equalize", 1.0, 0)),
    (("color", 0.6, 4), ("contrast", 1.0, 8)),
    (("rotate", 0.8, 8), ("color", 1.0, 2)),
    (("color", 0.8, 8), ("solarize", 0.8, 7)),
    (("sharpness", 0.4, 7), ("invert", 0.6, 0)),
    (("shear_x", 0.6, 5), ("equalize", 1.0, 0)),
    (("color", 0.4, 0), ("equalize", 0.6, 0)),
    (("equalize", 0.4, 0), ("solarize", 0.2, 4)),
    (("solarize", 0.6, 5), ("autocontrast", 0.6, 0)),
    (("invert", 0.6, 0), ("equalize", 1.0, 0)),
    (("color", 0.6, 4), ("contrast", 1.0, 8)),
    (("equalize", 0.8, 0), ("equalize", 0.6, 0)),
)
"""AutoAugment's ImageNet policy (table 9; five are there twice): operation, probability, magnitude of 0 to 9."""


def apply(
    image: Image.Image, policy: Policy, *, fill: tuple[int, int, int], random: np.random.Generator
) -> Image.Image:
    """The image, RGB, after the operations drawn; `fill` is the colour of what they uncover."""
    wide = isinstance(policy, TrivialAugmentPolicy)
    for operation, strength in draw(policy, random):
        image = operate(image, operation, strength, wide=wide, fill=fill)
    return image


def draw(policy: Policy, random: np.random.Generator) -> Drawn:
    """What happens to one image."""
    match policy:
        case RandAugmentPolicy(num_ops=num_ops, magnitude=magnitude):
            chosen = random.integers(len(OPERATIONS), size=num_ops)
            return [(OPERATIONS[number], _sign(random) * magnitude / 30) for number in chosen]
        case TrivialAugmentPolicy():
            operation = OPERATIONS[random.integers(len(OPERATIONS))]
            return [(operation, _sign(random) * random.integers(31) / 30)]
        case AutoAugmentPolicy():
            chosen = SUB_POLICIES[random.integers(len(SUB_POLICIES))]
            return [
                (operation, _sign(random) * magnitude / 9)
                for operation, probability, magnitude in chosen
                if random.random() < probability
            ]


def operate(
    image: Image.Image, operation: str, strength: float, *, wide: bool, fill: tuple[int, int, int]
) -> Image.Image:
    """One operation at a share of its reach, or of the wide one (TrivialAugment, table 1).

    Angles turn counterclockwise; shears keep the upper left corner; factors are 1 + reach * strength.
    """
    match operation:
        case "identity":
            return image
        case "autocontrast":
            return ImageOps.autocontrast(image)
        case "equalize":
            return ImageOps.equalize(image)
        case "invert":
            return ImageOps.invert(image)
        case "posterize":
            return ImageOps.posterize(image, 8 - round((6 if wide else 4) * abs(strength)))
        case "solarize":
            return ImageOps.solarize(image, math.ceil(255.0 * (1.0 - abs(strength))))
        case "brightness" | "color" | "contrast" | "sharpness":
            kind = {
                "brightness": ImageEnhance.Brightness,
                "color": ImageEnhance.Color,
                "contrast": ImageEnhance.Contrast,
                "sharpness": ImageEnhance.Sharpness,
            }[operation]
            return kind(image).enhance(1.0 + (0.99 if wide else 0.9) * strength)
        case "rotate":
            return image.rotate((135.0 if wide else 30.0) * strength, Image.Resampling.NEAREST, fillcolor=fill)
        case "shear_x":
            return _affine(image, (1.0, (0.99 if wide else 0.3) * strength, 0.0, 0.0, 1.0, 0.0), fill)
        case "shear_y":
            return _affine(image, (1.0, 0.0, 0.0, (0.99 if wide else 0.3) * strength, 1.0, 0.0), fill)
        case "translate_x":
            pixels = int((32.0 if wide else 150.0 / 331.0 * image.width) * strength)
            return _affine(image, (1.0, 0.0, -pixels, 0.0, 1.0, 0.0), fill)
        case "translate_y":
            pixels = int((32.0 if wide else 150.0 / 331.0 * image.height) * strength)
            return _affine(image, (1.0, 0.0, 0.0, 0.0, 1.0, -pixels), fill)
        case _:
            raise AssertionError(operation)


def _affine(
    image: Image.Image, source: tuple[float, float, float, float, float, float], fill: tuple[int, int, int]
) -> Image.Image:
    """Each pixel (x, y) from (a x + b y + c, d x + e y + f) of the image."""
    return image.transform(image.size, Image.Transform.AFFINE, source, Image.Resampling.NEAREST, fillcolor=fill)


def _sign(random: np.random.Generator) -> int:
    return 1 if random.random() < 0.5 else -1
