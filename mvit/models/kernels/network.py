"""The network on the operators of `native/`: the same cells and parameters as in `mobilevit`, computed channels-last.

Its input is (B, H, W, 3). A cell whose BatchNorm is frozen has no operator: it computes in its plain form.

Cells hold the parameters of their operator in a tuple. `self.conv.weight` would have MindSpore parse `conv`, which
nothing here calls: half of the time that it takes to read the network.
"""

from typing import Any, Literal

import mindspore as ms
import numpy as np
from mindspore import ops

from mvit.config import ModelConfig
from mvit.models import layers, mobilevit
from mvit.models.kernels import operators


def _constants(*values: float) -> ms.Tensor:
    return ms.Tensor(np.array(values, np.float32))


def _salts(*dropouts: layers.Dropout) -> list[int]:
    """Row and column salt of each."""
    return [int(salt.asnumpy()) for dropout in dropouts for salt in (dropout.row_salt, dropout.column_salt)]


def _parameters(part: layers.ConvNorm) -> tuple[ms.Parameter, ...]:
    norm = part.norm
    return part.conv.weight, norm.gamma, norm.beta, norm.moving_mean, norm.moving_variance


def _channels_first(x):
    return ops.transpose(x, (0, 3, 1, 2))


def _channels_last(x):
    return ops.transpose(x, (0, 2, 3, 1))


class ConvNorm(layers.ConvNorm):
    """(B, H, W, C) -> (B, ceil(H/stride), ceil(W/stride), C'), with SiLU."""

    differentiate_input = True
    has_frozen_norm = False

    def __init__(self, in_channels: int, out_channels: int, *, kernel_size: int, stride: int = 1) -> None:
        super().__init__(in_channels, out_channels, kernel_size=kernel_size, stride=stride)
        self.in_training = operators.conv_norm(stride=stride, differentiate_input=self.differentiate_input)
        self.in_evaluation = operators.conv_norm_eval(stride=stride)
        self.parameters = _parameters(self)
        self.constants = _constants(layers.BATCH_NORM_EPS, layers.BATCH_NORM_KEPT)

    def construct(self, x):
        if not self.training:
            return self.in_evaluation(x, *self.parameters, self.constants)
        if self.has_frozen_norm:
            # Not super().construct: in graph mode, super() in a subclass is this class again.
            return _channels_last(self.silu(self.norm(self.conv(_channels_first(x)))))
        return self.in_training(x, *self.parameters, self.constants)[0]


class Stem(ConvNorm):
    """The first one, whose input are the images."""

    differentiate_input = False


class InvertedResidual(mobilevit.InvertedResidual):
    has_frozen_norm = False

    def __init__(self, in_channels: int, out_channels: int, *, stride: int, expansion: int) -> None:
        super().__init__(in_channels, out_channels, stride=stride, expansion=expansion)
        self.in_training = operators.inverted_residual(stride=stride)
        self.in_evaluation = operators.inverted_residual_eval(stride=stride)
        parts = (self.expand, self.depthwise, self.project)
        self.parameters = tuple(parameter for part in parts for parameter in _parameters(part))
        self.constants = _constants(layers.BATCH_NORM_EPS, layers.BATCH_NORM_KEPT, stride)

    def construct(self, x):
        if not self.training:
            return self.in_evaluation(x, *self.parameters, self.constants)
        if self.has_frozen_norm:
            return _channels_last(super().construct(_channels_first(x)))
        return self.in_training(x, *self.parameters, self.constants)[0]


class TransformerLayer(mobilevit.TransformerLayer):
    def __init__(self, features: int, *, hidden: int, heads: int, dropout: float, eps: float, salt: int) -> None:
        super().__init__(features, hidden=hidden, heads=heads, dropout=dropout, eps=eps, salt=salt)
        self.in_training = operators.transformer_layer()
        self.in_evaluation = operators.transformer_layer_eval()
        threshold = int(self.dropout1.threshold.asnumpy())
        self.salts = ms.Tensor(np.array([*_salts(self.dropout1, self.dropout2), threshold, heads], np.int32))
        self.constants = _constants(eps, 1.0 / (1.0 - dropout))

        attention = self.attention
        cells = (
            self.norm1, attention.query, attention.key, attention.value, attention.out,
            self.norm2, self.fc1, self.fc2,
        )  # fmt: skip
        self.parameters = tuple(parameter for cell in cells for parameter in cell.get_parameters())

    def construct(self, x, key):
        inputs = (x, key, self.salts, self.constants, *self.parameters)
        return self.in_training(*inputs)[0] if self.training else self.in_evaluation(*inputs)


class MobileViTBlock(mobilevit.MobileViTBlock):
    """(B, H, W, C) -> same."""

    conv_norm = ConvNorm
    transformer_layer = TransformerLayer

    def __init__(
        self, channels: int, *, eps: float, projection: Literal["linear", "conv_norm_silu"], **arguments: Any
    ) -> None:
        super().__init__(channels, eps=eps, projection=projection, **arguments)
        self.is_linear = projection == "linear"
        self.projection = operators.project()
        self.to_patches, self.from_patches = operators.to_patches(), operators.from_patches()
        self.layer_norm = operators.layer_norm()
        self.constants = _constants(eps)

    def construct(self, x, key):
        y = self.local(x)
        y = self.projection(y, self.to_tokens.weight) if self.is_linear else self.to_tokens(y)
        height, width = y.shape[1], y.shape[2]
        resized = height % 2 + width % 2 > 0
        if resized:
            y = _resize(y, height + height % 2, width + width % 2)
        like = y
        y = self.to_patches(y)
        for layer in self.layers:
            y = layer(y, key)
        y = self.layer_norm(y, self.norm.gamma, self.norm.beta, self.constants)[0]
        y = self.from_patches(y, like)
        if resized:
            y = _resize(y, height, width)
        return self.fuse(ops.concat((x, self.from_tokens(y)), 3))


def _resize(x, height, width):
    return _channels_last(mobilevit.resize(_channels_first(x), height, width))


class MobileViT(mobilevit.MobileViT):
    """Image classifier: images (B, H, W, 3) float32 -> logits (B, classes) float32."""

    channels_last = True
    first_conv_norm = Stem
    conv_norm = ConvNorm
    inverted_residual = InvertedResidual
    block = MobileViTBlock

    def __init__(self, config: ModelConfig, *, num_classes: int) -> None:
        super().__init__(config, num_classes=num_classes)
        self.pool = operators.pool()
        threshold = int(self.dropout.threshold.asnumpy())
        self.salts = ms.Tensor(np.array([*_salts(self.dropout), threshold], np.int32))
        self.constants = _constants(1.0 / (1.0 - config.classifier_dropout))
        # The threshold and the factor of a rate of 0.
        self.keep_all = ms.Tensor(np.array([*_salts(self.dropout), -(1 << 31)], np.int32))
        self.one = _constants(1.0)

    def construct(self, images, key):
        x = self.final(self.features(images, key))
        if self.training:
            x = self.pool(x, key, self.salts, self.constants)
        else:
            x = self.pool(x, key, self.keep_all, self.one)
        return self.head(x)
