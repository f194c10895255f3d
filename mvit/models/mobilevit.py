"""MobileViT (Mehta and Rastegari, arXiv 2110.02178).

Shapes: `B` batch, `C` channels, `H` `W` pixels of a feature map, `P` pixels per patch, `N` patches, `D` features of a
token, `A` heads. Dropout is stateless: `key` (int32 scalar) selects the masks of one pass, see `layers.Dropout`.
"""

from typing import ClassVar, Literal

import mindspore as ms
from mindspore import nn, ops

from mvit.config import ModelConfig
from mvit.models.layers import ConvNorm, Dropout, LayerNorm, dense


class InvertedResidual(nn.Cell):
    """MobileNetV2's block: 1x1 expansion, 3x3 depthwise, 1x1 projection; with a residual if the shape is preserved."""

    def __init__(self, in_channels: int, out_channels: int, *, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = in_channels * expansion
        self.expand = ConvNorm(in_channels, hidden, kernel_size=1)
        self.depthwise = ConvNorm(hidden, hidden, kernel_size=3, stride=stride, groups=hidden)
        self.project = ConvNorm(hidden, out_channels, kernel_size=1, activate=False)
        self.residual = stride == 1 and in_channels == out_channels

    def construct(self, x):
        y = self.project(self.depthwise(self.expand(x)))
        return x + y if self.residual else y


class Attention(nn.Cell):
    """Multi-head self-attention over N patches, separately for each of the P pixels of a patch: (B*P, N, D) -> same."""

    def __init__(self, features: int, *, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.head_features = features // heads
        self.scale = self.head_features**-0.5
        # Three Dense layers rather than slices of one: each slice costs a gradient kernel.
        self.query = dense(features, features)
        self.key = dense(features, features)
        self.value = dense(features, features)
        self.out = dense(features, features)

    def construct(self, x):
        rows, num_patches, features = x.shape
        split = (rows, num_patches, self.heads, self.head_features)
        q = ops.transpose(ops.reshape(self.query(x) * self.scale, split), (0, 2, 1, 3))  # (B*P, A, N, D/A)
        k = ops.transpose(ops.reshape(self.key(x), split), (0, 2, 3, 1))  # (B*P, A, D/A, N)
        v = ops.transpose(ops.reshape(self.value(x), split), (0, 2, 1, 3))  # (B*P, A, N, D/A)
        weights = ops.softmax(ops.matmul(q, k), -1)  # (B*P, A, N, N)
        x = ops.matmul(weights, v)  # (B*P, A, N, D/A)
        x = ops.reshape(ops.transpose(x, (0, 2, 1, 3)), (rows, num_patches, features))
        return self.out(x)


class TransformerLayer(nn.Cell):
    """Pre-norm transformer layer: attention and a feed-forward of one hidden layer, each with a residual."""

    def __init__(self, features: int, *, hidden: int, heads: int, dropout: float, eps: float, salt: int) -> None:
        super().__init__()
        self.norm1 = LayerNorm(features, eps=eps)
        self.attention = Attention(features, heads=heads)
        self.norm2 = LayerNorm(features, eps=eps)
        self.fc1 = dense(features, hidden)
        self.silu = nn.SiLU()
        self.fc2 = dense(hidden, features)
        self.dropout1 = Dropout(dropout, salt=salt)
        self.dropout2 = Dropout(dropout, salt=salt + 1)

    def construct(self, x, key):
        x = x + self.dropout1(self.attention(self.norm1(x)), key)
        return x + self.dropout2(self.fc2(self.silu(self.fc1(self.norm2(x)))), key)


class MobileViTBlock(nn.Cell):
    """Convolution, transformer over patches, fusion (section 3.1 of the paper): (B, C, H, W) -> same."""

    conv_norm: ClassVar[type[ConvNorm]] = ConvNorm
    transformer_layer: ClassVar[type[TransformerLayer]] = TransformerLayer

    def __init__(
        self,
        channels: int,
        *,
        features: int,
        hidden: int,
        depth: int,
        heads: int,
        dropout: float,
        eps: float,
        salt: int,
        projection: Literal["linear", "conv_norm_silu"],
        patch: int = 2,
    ) -> None:
        super().__init__()
        self.patch = patch
        self.local = self.conv_norm(channels, channels, kernel_size=3)
        if projection == "linear":
            self.to_tokens = nn.Conv2d(channels, features, 1, has_bias=False)
        else:  # MindCV's network, which computes a different function
            self.to_tokens = self.conv_norm(channels, features, kernel_size=1)
        self.layers = nn.CellList(
            [
                self.transformer_layer(
                    features, hidden=hidden, heads=heads, dropout=dropout, eps=eps, salt=salt + 2 * index
                )
                for index in range(depth)
            ]
        )
        self.norm = LayerNorm(features, eps=eps)
        self.from_tokens = self.conv_norm(features, channels, kernel_size=1)
        self.fuse = self.conv_norm(2 * channels, channels, kernel_size=3)

    def construct(self, x, key):
        y = self.to_tokens(self.local(x))
        batch, features, height, width = y.shape
        p = self.patch
        rows, columns = -(-height // p), -(-width // p)
        resized = rows * p != height or columns * p != width
        if resized:
            y = self.resize(y, rows * p, columns * p)
        # (B, D, H, W) -> (B*D*H/p, p, W/p, p) -> (B, D, N, P) -> (B*P, N, D)
        y = ops.reshape(y, (batch * features * rows, p, columns, p))
        y = ops.reshape(ops.transpose(y, (0, 2, 1, 3)), (batch, features, rows * columns, p * p))
        y = ops.reshape(ops.transpose(y, (0, 3, 2, 1)), (batch * p * p, rows * columns, features))
        for layer in self.layers:
            y = layer(y, key)
        y = self.norm(y)
        # (B*P, N, D) -> (B, D, N, P) -> (B*D*H/p, p, W/p, p) -> (B, D, H, W)
        y = ops.transpose(ops.reshape(y, (batch, p * p, rows * columns, features)), (0, 3, 2, 1))
        y = ops.transpose(ops.reshape(y, (batch * features * rows, columns, p, p)), (0, 2, 1, 3))
        y = ops.reshape(y, (batch, features, rows * p, columns * p))
        if resized:
            y = self.resize(y, height, width)
        return self.fuse(ops.concat((x, self.from_tokens(y)), 1))

    def resize(self, x, height, width):
        """Bilinear, without aligned corners, as in timm and transformers."""
        return ops.interpolate(x, size=(height, width), mode="bilinear", align_corners=False)


class MobileViT(nn.Cell):
    """Image classifier: images (B, 3, H, W) float, H and W at least 32 -> logits (B, classes) float32.

    Parameter names and shapes are listed, without building the network, by `spec.parameter_shapes`.
    """

    channels_last: ClassVar[bool] = False
    """Whether images come as (B, H, W, 3)."""
    first_conv_norm: ClassVar[type[ConvNorm]] = ConvNorm
    conv_norm: ClassVar[type[ConvNorm]] = ConvNorm
    inverted_residual: ClassVar[type[InvertedResidual]] = InvertedResidual
    block: ClassVar[type[MobileViTBlock]] = MobileViTBlock

    def __init__(self, config: ModelConfig, *, num_classes: int) -> None:
        super().__init__()
        self.stem = self.first_conv_norm(3, config.stem_channels, kernel_size=3, stride=2)
        stages = []
        channels = config.stem_channels
        for index, out_channels in enumerate(config.channels):
            stage = nn.CellList()
            for position in range(config.conv_blocks[index]):
                stride = 2 if position == 0 and index > 0 else 1
                stage.append(self.inverted_residual(channels, out_channels, stride=stride, expansion=config.expansion))
                channels = out_channels
            stages.append(stage)
        self.stages = nn.CellList(stages)
        transformers = nn.CellList()
        salt = 0
        for index, depth in enumerate(config.depths):
            transformers.append(
                self.block(
                    config.channels[index + 2],
                    features=config.features[index],
                    hidden=config.hidden[index],
                    depth=depth,
                    heads=config.heads,
                    dropout=config.dropout,
                    eps=config.layer_norm_eps,
                    salt=salt,
                    projection=config.token_projection,
                )
            )
            salt += 2 * depth
        self.transformers = transformers
        self.first_transformer = len(config.channels) - len(config.depths)
        self.final = self.conv_norm(channels, channels * config.final_expansion, kernel_size=1)
        self.dropout = Dropout(config.classifier_dropout, salt=salt)
        self.head = dense(channels * config.final_expansion, num_classes)

    def construct(self, images, key):
        x = self.final(self.features(images, key))
        x = ops.mean(x, (2, 3))  # (B, C, H, W) -> (B, C)
        return ops.cast(self.head(self.dropout(x, key)), ms.float32)

    def features(self, images, key):
        x = self.stem(images)
        for index in range(len(self.stages)):
            for block in self.stages[index]:
                x = block(x)
            if index >= self.first_transformer:
                x = self.transformers[index - self.first_transformer](x, key)
        return x
