"""Specification of a MobileViT, without building it: names, shapes and multiply-accumulates.

The parent, which never loads MindSpore, plans with it; a test compares it with the real network.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from mvit.config import ModelConfig, OptimizerConfig

STATISTICS = ("moving_mean", "moving_variance")
NORM_AND_BIAS = (".gamma", ".beta", ".bias")
"""Suffixes of the names of one-dimensional parameters."""


@dataclass(frozen=True)
class Part:
    """A layer: its parameters by name, and its multiply-accumulates for one image."""

    shapes: dict[str, tuple[int, ...]]
    macs: int = 0


def parameter_shapes(config: ModelConfig, *, num_classes: int) -> dict[str, tuple[int, ...]]:
    """Every parameter and BatchNorm statistic of `MobileViT`, in the network's order."""
    return {k: v for part in _parts(config, num_classes, image_size=256) for k, v in part.shapes.items()}


def count_parameters(config: ModelConfig, *, num_classes: int, without: Sequence[str] = ()) -> int:
    """Number of trainable parameters not matched by a pattern; BatchNorm's running statistics do not count."""
    shapes = parameter_shapes(config, num_classes=num_classes)
    return sum(
        math.prod(shape)
        for name, shape in shapes.items()
        if not name.endswith(STATISTICS) and not any(fnmatchcase(name, pattern) for pattern in without)
    )


def count_macs(config: ModelConfig, *, num_classes: int, image_size: int) -> int:
    """Multiply-accumulates of one image's forward pass: convolutions, Dense and both products of attention.

    The published GMACs at 256 (0.42, 1.05, 2.03) are fvcore's, which also counts 2 per output of BatchNorm and 5 per
    output of LayerNorm: 2 to 3 % more. Normalisation, activations, softmax, biases and resizing are not counted here.
    """
    return sum(part.macs for part in _parts(config, num_classes, image_size=image_size))


def num_layers(config: ModelConfig) -> int:
    """Number of depths that `layer_of` distinguishes: the stem, each stage, the last 1x1 convolution, the head."""
    return len(config.channels) + 3


def layer_of(name: str, config: ModelConfig) -> int:
    """Depth of a parameter, from 0 for the stem; a transformer counts as part of its stage."""
    stages = len(config.channels)
    match name.split("."):
        case ["stem", *_]:
            return 0
        case ["stages", index, *_]:
            return int(index) + 1
        case ["transformers", index, *_]:
            return stages - len(config.depths) + int(index) + 1
        case ["final", *_]:
            return stages + 1
        case ["head", *_]:
            return stages + 2
        case _:
            raise ValueError(f"{name} is not a parameter of MobileViT")


def groups(names: Sequence[str], config: OptimizerConfig, *, model: ModelConfig) -> tuple[list[float], list[bool]]:
    """For each parameter: the factor on its learning rate, and whether it decays.

    The factor is layer_decay to the power of the parameter's distance from the head (arXiv 2003.10555).
    """
    last = num_layers(model) - 1
    factors = [config.layer_decay ** (last - layer_of(name, model)) for name in names]
    excluded = NORM_AND_BIAS if config.decay_excludes == "norm_and_bias" else ()
    return factors, [not name.endswith(excluded) for name in names]


def _parts(config: ModelConfig, num_classes: int, *, image_size: int) -> Iterator[Part]:
    size = _half(image_size)
    yield _conv_norm("stem", 3, config.stem_channels, kernel=3, size=size)
    channels = config.stem_channels
    transformers: list[Part] = []
    first = len(config.channels) - len(config.depths)
    for stage, out in enumerate(config.channels):
        for block in range(config.conv_blocks[stage]):
            hidden, name, before = channels * config.expansion, f"stages.{stage}.{block}", size
            if block == 0 and stage > 0:
                size = _half(size)
            yield _conv_norm(f"{name}.expand", channels, hidden, kernel=1, size=before)
            yield _conv_norm(f"{name}.depthwise", hidden, hidden, kernel=3, size=size, groups=hidden)
            yield _conv_norm(f"{name}.project", hidden, out, kernel=1, size=size)
            channels = out
        if stage >= first:
            transformers += _transformer(config, stage - first, channels=channels, size=size)
    yield from transformers  # in the network they follow all stages
    last = channels * config.final_expansion
    yield _conv_norm("final", channels, last, kernel=1, size=size)
    yield _dense("head", last, num_classes, rows=1)


def _transformer(config: ModelConfig, index: int, *, channels: int, size: int) -> Iterator[Part]:
    name, features, hidden = f"transformers.{index}", config.features[index], config.hidden[index]
    patches = math.ceil(size / 2) ** 2
    tokens = 4 * patches  # a feature map with an odd side is enlarged first
    yield _conv_norm(f"{name}.local", channels, channels, kernel=3, size=size)
    if config.token_projection == "linear":
        yield Part({f"{name}.to_tokens.weight": (features, channels, 1, 1)}, features * channels * size**2)
    else:
        yield _conv_norm(f"{name}.to_tokens", channels, features, kernel=1, size=size)
    for layer in range(config.depths[index]):
        inner = f"{name}.layers.{layer}"
        yield _layer_norm(f"{inner}.norm1", features)
        for part in ("query", "key", "value", "out"):
            yield _dense(f"{inner}.attention.{part}", features, features, rows=tokens)
        yield Part({}, 2 * tokens * patches * features)
        yield _layer_norm(f"{inner}.norm2", features)
        yield _dense(f"{inner}.fc1", features, hidden, rows=tokens)
        yield _dense(f"{inner}.fc2", hidden, features, rows=tokens)
    yield _layer_norm(f"{name}.norm", features)
    yield _conv_norm(f"{name}.from_tokens", features, channels, kernel=1, size=size)
    yield _conv_norm(f"{name}.fuse", 2 * channels, channels, kernel=3, size=size)


def _conv_norm(name: str, inputs: int, outputs: int, *, kernel: int, size: int, groups: int = 1) -> Part:
    weight = (outputs, inputs // groups, kernel, kernel)
    norm = {f"{name}.norm.{part}": (outputs,) for part in (*STATISTICS, "gamma", "beta")}
    return Part({f"{name}.conv.weight": weight, **norm}, math.prod(weight) * size**2)


def _layer_norm(name: str, features: int) -> Part:
    return Part({f"{name}.gamma": (features,), f"{name}.beta": (features,)})


def _dense(name: str, inputs: int, outputs: int, *, rows: int) -> Part:
    return Part({f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}, rows * inputs * outputs)


def _half(size: int) -> int:
    return math.ceil(size / 2)
