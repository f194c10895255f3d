"""Any image Pillow reads, as RGB."""

import numpy as np
from PIL import Image

TRANSPARENT = ("RGBA", "LA", "PA", "RGBa", "La")


def to_rgb(image: Image.Image) -> Image.Image:
    """The image in mode RGB, 8 bits a channel; decodes it.

    16-bit grey keeps its high byte, as Pillow does with 16-bit colour. Transparency is flattened onto black. CMYK and
    the rest go through Pillow's convert. An orientation in EXIF is left alone, as it is by those who report ImageNet.
    """
    if image.mode == "RGB" and "transparency" not in image.info:
        image.load()
        return image
    if image.mode.startswith("I"):  # I;16 and its byte orders; Pillow before 11 opens 16-bit PNG as I
        wide = np.clip(np.asarray(image, np.int64), 0, 65535)
        return Image.fromarray((wide >> 8).astype(np.uint8)).convert("RGB")
    if image.mode in TRANSPARENT or "transparency" in image.info:
        image = image.convert("RGBA")
        black = Image.new("RGBA", image.size, (0, 0, 0, 255))
        return Image.alpha_composite(black, image).convert("RGB")
    return image.convert("RGB")
