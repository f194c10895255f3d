"""The network on the operators of `native/`: the same cells and parameters as in `mobilevit`, computed channels-last.

The backward pass is written out, which spares a compilation the time to differentiate the forward pass:

    cell(x) -> y, kept              in training; what is kept is for `backward`
    backward(kept, dy) -> dx, d     the gradients: a vector for each group of parameters in `differentiated()`, or, for
                                    a group of one, its gradient as it is

A cell whose BatchNorm is frozen has no operator: it computes in its plain form, which MindSpore differentiates.

Cells hold the parameters of their operator in a tuple. `self.conv.weight` would have MindSpore parse `conv`, which
nothing here calls: half of the time that it takes to read the network.
"""

from typing import Any, Literal

import mindspore as ms
import numpy as np
from mindspore import nn, ops

from mvit.config import ModelConfig
from mvit.models import layers, mobilevit
from mvit.models.kernels import operators

Parameters = tuple[ms.Parameter, ...]
Pieces = tuple[Parameters, ...]
"""The parameters of each tensor of gradients."""


def _constants(*values: float) -> ms.Tensor:
    return ms.Tensor(np.array(values, np.float32))


def _salts(*dropouts: layers.Dropout) -> list[int]:
    """Row and column salt of each."""
    return [int(salt.asnumpy()) for dropout in dropouts for salt in (dropout.row_salt, dropout.column_salt)]


def _weights(part: layers.ConvNorm) -> Parameters:
    return part.conv.weight, part.norm.gamma, part.norm.beta


def _parameters(part: layers.ConvNorm) -> Parameters:
    return *_weights(part), part.norm.moving_mean, part.norm.moving_variance


def _channels_first(x):
    return ops.transpose(x, (0, 3, 1, 2))


def _channels_last(x):
    return ops.transpose(x, (0, 2, 3, 1))


class Freezable(nn.Cell):
    """A cell with operators, and a form without them for when a BatchNorm is frozen."""

    has_frozen_norm = False
    weights: Parameters
    """What the operator has gradients of."""

    def freeze_norm(self) -> None:
        """Use the plain form from now on, with the gradients of the parameters that are still trained."""
        self.has_frozen_norm = True
        self.trained = ms.ParameterTuple(self.trainable_params())
        self.is_trained = len(self.trained) > 0
        self.differentiate = ops.GradOperation(get_all=True, get_by_list=self.is_trained, sens_param=True)

    def differentiated(self) -> Pieces:
        return tuple((parameter,) for parameter in self.trained) if self.has_frozen_norm else (self.weights,)

    def plain(self, x):
        """The output by MindSpore's operators, from maps that are channels-last to such maps; each cell has its own."""
        raise NotImplementedError

    def plain_again(self, x):
        """As `plain`, which `backward_of_plain` computes a second time: running statistics stay where they are."""
        return self.plain(x)

    def backward_of_plain(self, x, dy):
        if self.is_trained:
            dx, gradients = self.differentiate(self.plain_again, self.trained)(x, dy)
            return dx[0], gradients
        return self.differentiate(self.plain_again)(x, dy)[0], ()


class ConvNorm(Freezable, layers.ConvNorm):
    """(B, H, W, C) -> (B, ceil(H/stride), ceil(W/stride), C'), with SiLU."""

    def __init__(self, in_channels: int, out_channels: int, *, kernel_size: int, stride: int = 1) -> None:
        super().__init__(in_channels, out_channels, kernel_size=kernel_size, stride=stride)
        self.in_training = operators.conv_norm(stride=stride)
        self.in_evaluation = operators.conv_norm_eval(stride=stride)
        self.gradient = operators.conv_norm_grad()
        self.parameters, self.weights = _parameters(self), _weights(self)
        self.constants = _constants(layers.BATCH_NORM_EPS, layers.BATCH_NORM_KEPT)

    def construct(self, x):
        if not self.training:
            return self.in_evaluation(x, *self.parameters, self.constants)
        if self.has_frozen_norm:
            return self.plain(x), (x,)
        z, y, saved = self.in_training(x, *self.parameters, self.constants)
        return z, (x, y, saved)

    def plain(self, x):
        return _channels_last(self.silu(self.norm(self.conv(_channels_first(x)))))

    def backward(self, kept, dz):
        if self.has_frozen_norm:
            return self.backward_of_plain(kept[0], dz)
        x, y, saved = kept
        d, dx = self.gradient(x, *self.weights, y, saved, dz)
        return dx, (d,)


class Stem(ConvNorm):
    """The first one. Its input is the images, of which nothing needs a gradient."""

    def __init__(self, in_channels: int, out_channels: int, *, kernel_size: int, stride: int = 1) -> None:
        super().__init__(in_channels, out_channels, kernel_size=kernel_size, stride=stride)
        self.gradient = operators.conv_norm_grad_weights()

    def backward(self, kept, dz):
        if self.has_frozen_norm:
            return (), self.backward_of_plain(kept[0], dz)[1]
        x, y, saved = kept
        return (), (self.gradient(x, *self.weights, y, saved, dz),)


class InvertedResidual(Freezable, mobilevit.InvertedResidual):
    def __init__(self, in_channels: int, out_channels: int, *, stride: int, expansion: int) -> None:
        super().__init__(in_channels, out_channels, stride=stride, expansion=expansion)
        self.in_training = operators.inverted_residual(stride=stride)
        self.in_evaluation = operators.inverted_residual_eval(stride=stride)
        self.gradient = operators.inverted_residual_grad()
        parts = (self.expand, self.depthwise, self.project)
        self.parameters = tuple(parameter for part in parts for parameter in _parameters(part))
        self.weights = tuple(parameter for part in parts for parameter in _weights(part))
        self.constants = _constants(layers.BATCH_NORM_EPS, layers.BATCH_NORM_KEPT, stride)

    def freeze_norm(self) -> None:
        super().freeze_norm()
        # For the parts that are not frozen, when they are computed again.
        self.batch_norm = ops.BatchNorm(is_training=True, epsilon=layers.BATCH_NORM_EPS, momentum=0.0)

    def construct(self, x):
        if not self.training:
            return self.in_evaluation(x, *self.parameters, self.constants)
        if self.has_frozen_norm:
            return self.plain(x), (x,)
        z, y1, y2, y3, saved = self.in_training(x, *self.parameters, self.constants)
        return z, (x, y1, y2, y3, saved)

    def plain(self, x):
        x = _channels_first(x)
        y = self.project(self.depthwise(self.expand(x)))
        return _channels_last(x + y if self.residual else y)

    def plain_again(self, x):
        x = _channels_first(x)
        y = self.part_again(self.project, self.part_again(self.depthwise, self.part_again(self.expand, x)))
        return _channels_last(x + y if self.residual else y)

    def part_again(self, part, x):
        norm = part.norm
        if norm.use_batch_statistics is False:
            return part(x)
        parameters = (norm.gamma, norm.beta, norm.moving_mean, norm.moving_variance)
        y = self.batch_norm(part.conv(x), *parameters)[0]
        return part.silu(y) if part.activate else y

    def backward(self, kept, dz):
        if self.has_frozen_norm:
            return self.backward_of_plain(kept[0], dz)
        x, y1, y2, y3, saved = kept
        dx, d = self.gradient(x, *self.weights, y1, y2, y3, saved, self.constants, dz)
        return dx, (d,)


class TransformerLayer(mobilevit.TransformerLayer):
    def __init__(self, features: int, *, hidden: int, heads: int, dropout: float, eps: float, salt: int) -> None:
        super().__init__(features, hidden=hidden, heads=heads, dropout=dropout, eps=eps, salt=salt)
        self.in_training = operators.transformer_layer()
        self.in_evaluation = operators.transformer_layer_eval()
        self.gradient = operators.transformer_layer_grad()
        threshold = int(self.dropout1.threshold.asnumpy())
        self.salts = ms.Tensor(np.array([*_salts(self.dropout1, self.dropout2), threshold, heads], np.int32))
        self.constants = _constants(eps, 1.0 / (1.0 - dropout))

        attention = self.attention
        cells = (
            self.norm1, attention.query, attention.key, attention.value, attention.out,
            self.norm2, self.fc1, self.fc2,
        )  # fmt: skip
        self.parameters = tuple(parameter for cell in cells for parameter in cell.get_parameters())

    def differentiated(self) -> Pieces:
        return (self.parameters,)

    def construct(self, x, key):
        if not self.training:
            return self.in_evaluation(x, key, self.salts, self.constants, *self.parameters)
        y, qkv, attended, between, hidden = self.in_training(x, key, self.salts, self.constants, *self.parameters)
        return y, (x, key, qkv, attended, between, hidden)

    def backward(self, kept, dy):
        x, key, qkv, attended, between, hidden = kept
        inputs = (x, key, self.salts, self.constants, *self.parameters)
        dx, d = self.gradient(*inputs, qkv, attended, between, hidden, dy)
        return dx, (d,)


class MobileViTBlock(mobilevit.MobileViTBlock):
    """(B, H, W, C) -> same."""

    conv_norm = ConvNorm
    transformer_layer = TransformerLayer

    def __init__(
        self, channels: int, *, eps: float, projection: Literal["linear", "conv_norm_silu"], **arguments: Any
    ) -> None:
        super().__init__(channels, eps=eps, projection=projection, **arguments)
        self.channels = channels
        self.is_linear = projection == "linear"
        if self.is_linear:
            self.projection, self.projection_gradient = operators.project(), operators.project_grad()
            self.projection_weights = (self.to_tokens.weight,)
        self.to_patches, self.to_patches_gradient = operators.to_patches(), operators.to_patches_grad()
        self.from_patches, self.from_patches_gradient = operators.from_patches(), operators.from_patches_grad()
        self.layer_norm, self.layer_norm_gradient = operators.layer_norm(), operators.layer_norm_grad()
        self.norm_weights = (self.norm.gamma, self.norm.beta)
        self.constants = _constants(eps)

    def differentiated(self) -> Pieces:
        of_tokens = (self.projection_weights,) if self.is_linear else self.to_tokens.differentiated()
        of_layers = tuple(piece for layer in self.layers for piece in layer.differentiated())
        of_ends = self.from_tokens.differentiated() + self.fuse.differentiated()
        return self.local.differentiated() + of_tokens + of_layers + (self.norm_weights,) + of_ends

    def construct(self, x, key):
        return self.forward(x, key) if self.training else self.evaluate(x, key)

    def evaluate(self, x, key):
        y = self.local(x)
        like = self.projection(y, *self.projection_weights) if self.is_linear else self.to_tokens(y)
        y = self.to_patches(like)
        for layer in self.layers:
            y = layer(y, key)
        y = self.layer_norm(y, *self.norm_weights, self.constants)[0]
        return self.fuse(ops.concat((x, self.from_tokens(self.from_patches(y, like))), 3))

    def forward(self, x, key):
        y, of_local = self.local(x)
        if self.is_linear:
            like, of_tokens = self.projection(y, *self.projection_weights), y
        else:
            like, of_tokens = self.to_tokens(y)
        y = self.to_patches(like)
        of_layers = ()
        for layer in self.layers:
            y, of_layer = layer(y, key)
            of_layers = (*of_layers, of_layer)
        normed, mean, rstd = self.layer_norm(y, *self.norm_weights, self.constants)
        of_norm = (y, mean, rstd)
        maps = self.from_patches(normed, like)
        y, of_from = self.from_tokens(maps)
        y, of_fuse = self.fuse(ops.concat((x, y), 3))
        return y, (of_local, of_tokens, of_layers, of_norm, maps, of_from, of_fuse)

    def backward(self, kept, dy):
        of_local, of_tokens, of_layers, of_norm, maps, of_from, of_fuse = kept
        dy, d_fuse = self.fuse.backward(of_fuse, dy)
        dx, dy = dy[..., : self.channels], dy[..., self.channels :]
        dy, d_from = self.from_tokens.backward(of_from, dy)
        y, mean, rstd = of_norm
        dy = self.from_patches_gradient(dy)
        dy, d_norm = self.layer_norm_gradient(y, *self.norm_weights, self.constants, mean, rstd, dy)
        d_layers = ()
        for index in range(len(self.layers) - 1, -1, -1):
            dy, d = self.layers[index].backward(of_layers[index], dy)
            d_layers = d + d_layers
        dy = self.to_patches_gradient(dy, maps)
        if self.is_linear:
            dy, d = self.projection_gradient(of_tokens, *self.projection_weights, dy)
            d_tokens = (d,)
        else:
            dy, d_tokens = self.to_tokens.backward(of_tokens, dy)
        dy, d_local = self.local.backward(of_local, dy)
        return dx + dy, d_local + d_tokens + d_layers + (d_norm,) + d_from + d_fuse


class MobileViT(mobilevit.MobileViT):
    """Image classifier: images (B, H, W, 3) float32 -> logits (B, classes) float32."""

    channels_last = True
    first_conv_norm = Stem
    conv_norm = ConvNorm
    inverted_residual = InvertedResidual
    block = MobileViTBlock

    def __init__(self, config: ModelConfig, *, num_classes: int) -> None:
        super().__init__(config, num_classes=num_classes)
        self.pool, self.pool_gradient = operators.pool(), operators.pool_grad()
        threshold = int(self.dropout.threshold.asnumpy())
        self.salts = ms.Tensor(np.array([*_salts(self.dropout), threshold], np.int32))
        self.constants = _constants(1.0 / (1.0 - config.classifier_dropout))
        # The threshold and the factor of a rate of 0.
        self.keep_all = ms.Tensor(np.array([*_salts(self.dropout), -(1 << 31)], np.int32))
        self.one = _constants(1.0)
        self.head_weights = (self.head.weight, self.head.bias)
        self.multiply = ops.MatMul()
        self.multiply_transposed = ops.MatMul(transpose_a=True)

    def differentiated(self) -> Pieces:
        cells = [self.stem, *(block for stage in self.stages for block in stage), *self.transformers, self.final]
        of_cells = tuple(piece for cell in cells for piece in cell.differentiated())
        return *of_cells, *((parameter,) for parameter in self.head_weights)

    def construct(self, images, key):
        return self.forward(images, key) if self.training else self.evaluate(images, key)

    def evaluate(self, images, key):
        x = self.final(self.features(images, key))
        return self.head(self.pool(x, key, self.keep_all, self.one))

    def forward(self, images, key):
        x, of_stem = self.stem(images)
        of_stages, of_transformers = (), ()
        for index in range(len(self.stages)):
            of_blocks = ()
            for block in self.stages[index]:
                x, of_block = block(x)
                of_blocks = (*of_blocks, of_block)
            of_stages = (*of_stages, of_blocks)
            if index >= self.first_transformer:
                x, of_transformer = self.transformers[index - self.first_transformer](x, key)
                of_transformers = (*of_transformers, of_transformer)
        x, of_final = self.final(x)
        pooled = self.pool(x, key, self.salts, self.constants)
        return self.head(pooled), (of_stem, of_stages, of_transformers, of_final, x, key, pooled)

    def backward(self, kept, dlogits):
        """The gradients d, from those of the logits."""
        of_stem, of_stages, of_transformers, of_final, x, key, pooled = kept
        d_head = (self.multiply_transposed(dlogits, pooled), ops.reduce_sum(dlogits, 0))
        dpooled = self.multiply(dlogits, self.head_weights[0])
        dx = self.pool_gradient(x, key, self.salts, self.constants, dpooled)
        dx, d_final = self.final.backward(of_final, dx)
        d_stages, d_transformers = (), ()
        for index in range(len(self.stages) - 1, -1, -1):
            if index >= self.first_transformer:
                block = index - self.first_transformer
                dx, d = self.transformers[block].backward(of_transformers[block], dx)
                d_transformers = d + d_transformers
            for position in range(len(self.stages[index]) - 1, -1, -1):
                dx, d = self.stages[index][position].backward(of_stages[index][position], dx)
                d_stages = d + d_stages
        d_stem = self.stem.backward(of_stem, dx)[1]
        return d_stem + d_stages + d_transformers + d_final + d_head
