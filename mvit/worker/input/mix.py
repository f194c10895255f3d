"""How the batch of one part of one step is mixed: drawn here, carried out in the graph by `images.Mix`."""

import math

import numpy as np

from mvit.config import MixConfig
from mvit.worker.input.sampler import generator

UNMIXED = np.array([1, 0, 0, 0, 0, 1], np.float32)
"""Each image as it is."""


def draw(config: MixConfig | None, *, seed: int, step: int, part: int, image_size: int) -> np.ndarray:
    """float32 (6,): share of an image outside the box, top, bottom, left, right of the box, weight of its own label.

    A function of (seed, step, part) alone. Mixup (arXiv 1710.09412): share from Beta(a, a), no box. CutMix (arXiv
    1905.04899): a box of the area 1 - Beta(a, a) around a uniform centre, cut off at the border; the label's weight is
    the share of pixels that stay.
    """
    if config is None:
        return UNMIXED
    random = generator(seed, step, part, stream=4)
    if random.random() >= config.probability:
        return UNMIXED
    if random.random() >= config.cutmix_share:
        share = random.beta(config.mixup_alpha, config.mixup_alpha)
        return np.array([share, 0, 0, 0, 0, share], np.float32)
    side = image_size * math.sqrt(1.0 - random.beta(config.cutmix_alpha, config.cutmix_alpha))
    row, column = random.uniform(0, image_size, 2)
    top, left = (max(0, round(centre - side / 2)) for centre in (row, column))
    bottom, right = (min(image_size, round(centre + side / 2)) for centre in (row, column))
    kept = 1.0 - (bottom - top) * (right - left) / image_size**2
    return np.array([1, top, bottom, left, right, kept], np.float32)
