"""Batches of images inside the graph: normalisation, and mixing with themselves.

Bytes are copied to the device, not floats: a quarter of the size.
"""

import mindspore as ms
import numpy as np
from mindspore import nn, ops

from mvit.config import ImagesConfig
from mvit.models.kernels import operators


class Normalise(nn.Cell):
    """RGB bytes (B, H, W, 3) uint8 -> the network's input, float32: (x / 255 - mean) / std.

    The input is (B, 3, H, W), or (B, H, W, 3) with `channels_last`, by one operator of the fused kernels.
    """

    def __init__(self, data: ImagesConfig, *, channels_last: bool = False) -> None:
        super().__init__(auto_prefix=False)
        mean, std = np.asarray(data.mean, np.float64), np.asarray(data.std, np.float64)
        self.reverse = data.channel_order == "bgr"
        self.fused = operators.normalise() if channels_last else None
        self.order = ms.Tensor(np.array([2, 1, 0] if self.reverse else [0, 1, 2], np.int32))
        shape = (3,) if channels_last else (1, 3, 1, 1)
        self.scale = ms.Tensor((1.0 / (255.0 * std)).astype(np.float32).reshape(shape))
        self.shift = ms.Tensor((mean / std).astype(np.float32).reshape(shape))

    def construct(self, images):
        if self.fused is not None:
            return self.fused(images, self.scale, self.shift, self.order)
        x = ops.cast(ops.transpose(images, (0, 3, 1, 2)), ms.float32)
        if self.reverse:  # mean and std are in the order in which the network sees the channels
            x = ops.concat((x[:, 2:3], x[:, 1:2], x[:, 0:1]), 1)
        return x * self.scale - self.shift


class Mix(nn.Cell):
    """Mixup and cutmix of a batch with itself in reverse order.

    images (B, C, H, W), or (B, H, W, C) with `channels_last`; mix (6,) float32 from `input.mix.draw`: the share of an
    image outside the box, the box (top, bottom, left, right) that the partner fills, and the weight of an image's own
    label -> as the images.
    """

    def __init__(self, *, channels_last: bool = False) -> None:
        super().__init__(auto_prefix=False)
        self.height_axis = 1 if channels_last else 2
        self.box_end = (1,) if channels_last else ()
        self.backwards = ops.ReverseV2(axis=[0])

    def construct(self, images, mix):
        height, width = images.shape[self.height_axis], images.shape[self.height_axis + 1]
        rows = ops.arange(0, height, 1, dtype=ms.float32)
        columns = ops.arange(0, width, 1, dtype=ms.float32)
        in_rows = ops.cast(ops.logical_and(rows >= mix[1], rows < mix[2]), ms.float32)
        in_columns = ops.cast(ops.logical_and(columns >= mix[3], columns < mix[4]), ms.float32)
        in_box = ops.reshape(in_rows, (height, 1)) * ops.reshape(in_columns, (1, width))
        in_box = ops.reshape(in_box, (height, width, *self.box_end))
        own = mix[0] * (1.0 - in_box)
        return images * own + self.backwards(images) * (1.0 - own)
