"""Layers: the operators of MobileViT, each a cell.

Shapes: `B` batch, `C` channels, `H` `W` pixels, `P` pixels per patch, `N` patches, `D` features of a token.
"""

import math

import mindspore as ms
from mindspore import nn, ops
from mindspore.common.initializer import HeNormal, TruncatedNormal

BATCH_NORM_EPS = 1e-5
BATCH_NORM_KEPT = 0.9
"""Share of a running statistic that an update keeps; MindSpore's "momentum", 1 minus PyTorch's."""


class ConvNorm(nn.Cell):
    """Convolution without bias, BatchNorm, optionally SiLU: (B, C, H, W) -> (B, C', ceil(H/stride), ceil(W/stride))."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernel_size: int,
        stride: int = 1,
        groups: int = 1,
        activate: bool = True,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            in_channels,
            out_channels,
            kernel_size,
            stride=stride,
            pad_mode="pad",
            padding=kernel_size // 2,
            group=groups,
            weight_init=HeNormal(mode="fan_out", nonlinearity="relu"),
        )
        self.norm = nn.BatchNorm2d(out_channels, eps=BATCH_NORM_EPS, momentum=BATCH_NORM_KEPT)
        self.activate = activate
        self.silu = nn.SiLU()

    def construct(self, x):
        x = self.norm(self.conv(x))
        return self.silu(x) if self.activate else x


def dense(in_features: int, out_features: int) -> nn.Dense:
    """Dense layer initialised as in both recipes: truncated normal with sigma 0.02, zero bias."""
    return nn.Dense(in_features, out_features, weight_init=TruncatedNormal(sigma=0.02), bias_init="zeros")


class LayerNorm(nn.LayerNorm):
    """LayerNorm over the last axis, with an explicit epsilon (MindSpore's default is 1e-7)."""

    def __init__(self, features: int, *, eps: float) -> None:
        super().__init__((features,), epsilon=eps)


class Dropout(nn.Cell):
    """Stateless dropout: the mask depends only on `key` and on the position of the element.

    `nn.Dropout` keeps a random state that no checkpoint can restore in graph mode; here the same `key` (int32 scalar,
    a graph input) gives the same mask in any process. Rows (first axis) and columns (the rest) are hashed separately,
    with the 32-bit finaliser "lowbias32" (C. Wellons, hash-prospector), so that hashing costs little; the mask compares
    the square of their exclusive or, the cheapest step that is not linear in both.

    Args:
        rate: share of elements set to zero; the others are divided by 1 - rate.
        salt: makes the dropout cells of one network independent.
    """

    def __init__(self, rate: float, *, salt: int) -> None:
        super().__init__()
        self.rate = rate
        self.row_salt = _int32(salt * 0x85EBCA6B + 1)
        self.column_salt = _int32(salt + 0x7F4A7C15)
        self.golden = _int32(0x9E3779B1)
        self.mix1 = _int32(0x7FEB352D)
        self.mix2 = _int32(0x846CA68B)
        # An int32 hash is below this with probability `rate`.
        self.threshold = _int32(int(rate * (1 << 32)) - (1 << 31))
        self.low16, self.low17 = _int32(0xFFFF), _int32(0x1FFFF)
        self.by15, self.by16 = _int32(15), _int32(16)
        self.xor, self.and_, self.shift = ops.BitwiseXor(), ops.BitwiseAnd(), ops.RightShift()

    def construct(self, x, key):
        if not self.training or self.rate == 0.0:
            return x
        shape = x.shape
        num_columns = math.prod(shape[1:])
        rows = ops.arange(0, shape[0], 1, dtype=ms.int32)
        rows = self.hash(rows * self.golden + self.xor(key, self.row_salt))
        columns = ops.arange(0, num_columns, 1, dtype=ms.int32)
        columns = self.hash(columns * self.golden + self.column_salt)
        mask = self.xor(ops.reshape(rows, (shape[0], 1)), ops.reshape(columns, (1, num_columns)))
        keep = ops.cast(mask * mask >= self.threshold, x.dtype)
        return x * ops.reshape(keep, shape) * (1.0 / (1.0 - self.rate))

    def hash(self, h):
        # The shift of an int32 is arithmetic; the masks make it logical.
        h = self.xor(h, self.and_(self.shift(h, self.by16), self.low16))
        h = h * self.mix1
        h = self.xor(h, self.and_(self.shift(h, self.by15), self.low17))
        h = h * self.mix2
        return self.xor(h, self.and_(self.shift(h, self.by16), self.low16))


def _int32(value: int) -> ms.Tensor:
    """The low 32 bits of `value`, read as a signed integer."""
    value &= 0xFFFFFFFF
    return ms.Tensor(value - (1 << 32) if value >= 1 << 31 else value, ms.int32)
