"""Batches of images inside the graph: normalisation, and mixing with themselves.

Bytes are copied to the device, not floats: a quarter of the size.
"""

import mindspore as ms
import numpy as np
from mindspore import nn, ops

from mvit.config import ImagesConfig


class Normalise(nn.Cell):
    """RGB bytes (B, H, W, 3) uint8 -> the network's input (B, 3, H, W) float32: (x / 255 - mean) / std."""

    def __init__(self, data: ImagesConfig) -> None:
        super().__init__(auto_prefix=False)
        mean, std = np.asarray(data.mean, np.float64), np.asarray(data.std, np.float64)
        self.scale = ms.Tensor((1.0 / (255.0 * std)).astype(np.float32).reshape(1, 3, 1, 1))
        self.shift = ms.Tensor((mean / std).astype(np.float32).reshape(1, 3, 1, 1))
        self.reverse = data.channel_order == "bgr"

    def construct(self, images):
        x = ops.cast(ops.transpose(images, (0, 3, 1, 2)), ms.float32)
        if self.reverse:  # mean and std are in the order in which the network sees the channels
            x = ops.concat((x[:, 2:3], x[:, 1:2], x[:, 0:1]), 1)
        return x * self.scale - self.shift


class Mix(nn.Cell):
    """Mixup and cutmix of a batch with itself in reverse order.

    images (B, C, H, W), mix (6,) float32 from `input.mix.draw`: the share of an image outside the box, the box
    (top, bottom, left, right) that the partner fills, and the weight of an image's own label -> (B, C, H, W).
    """

    def __init__(self) -> None:
        super().__init__(auto_prefix=False)
        self.backwards = ops.ReverseV2(axis=[0])

    def construct(self, images, mix):
        height, width = images.shape[2], images.shape[3]
        rows = ops.arange(0, height, 1, dtype=ms.float32)
        columns = ops.arange(0, width, 1, dtype=ms.float32)
        in_rows = ops.cast(ops.logical_and(rows >= mix[1], rows < mix[2]), ms.float32)
        in_columns = ops.cast(ops.logical_and(columns >= mix[3], columns < mix[4]), ms.float32)
        in_box = ops.reshape(in_rows, (height, 1)) * ops.reshape(in_columns, (1, width))
        own = mix[0] * (1.0 - in_box)
        return images * own + self.backwards(images) * (1.0 - own)
