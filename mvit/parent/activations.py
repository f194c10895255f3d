"""Activations of a MobileViT: the memory that its feature maps take, from shapes alone.

Counted is what lives at once. In training, each part leaves maps for the backward pass, which goes through the parts in
reverse and frees them; the most live where a part's own gradients are made. `I` channels that go in, `O` that come out,
`P` pixels, `T` tokens, `D` features of a token; all for one image.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from mvit.config import ModelConfig

FLOAT = 4


@dataclass(frozen=True)
class Part:
    """Bytes for one image of one part of the network."""

    output: int
    """What the next part takes, which is kept for its backward pass."""
    kept: int = 0
    """What is kept beside it until the part's own backward pass."""
    passing: int = 0
    """What lives only while the part computes forward."""
    gradients: int = 0
    """What lives only while the part computes backward, beside the gradient of its output."""
    scratch: tuple[int, int] = (0, 0)
    """What its backward pass takes of memory that the kernels share, and never give back."""
    evaluated: int = 0
    """What lives at most while the part computes in an evaluation, its input and output included."""


@dataclass(frozen=True)
class Form:
    """In which form the network computes."""

    is_fused: bool
    kept_bytes: int
    """Bytes of a value of what is kept: in the fused form of convolutions' maps, in the plain form of all."""


def training_bytes(config: ModelConfig, *, image_size: int, form: Form) -> int:
    """The most that the forward and backward pass of one image hold at once."""
    held = most = 0
    parts = list(_parts(config, image_size, form))
    for part in parts:
        most = max(most, held + part.output + part.kept + part.passing)
        held += part.output + part.kept
    for part in reversed(parts):  # the gradient of an output takes the place of the output
        most = max(most, held + part.gradients)
        held -= part.output + part.kept
    return most + sum(max(part.scratch[slot] for part in parts) for slot in (0, 1))


def evaluation_bytes(config: ModelConfig, *, image_size: int, form: Form) -> int:
    """The most that the evaluation of one image holds at once."""
    return max(part.evaluated for part in _parts(config, image_size, form))


def _parts(config: ModelConfig, image_size: int, form: Form) -> Iterator[Part]:
    """The parts of the network in the order in which they compute, the batch as bytes and as floats first."""
    make = _Fused(config, form.kept_bytes) if form.is_fused else _Plain(config, form.kept_bytes)
    pixels = image_size**2
    yield Part(output=3 * pixels * FLOAT, kept=3 * pixels, evaluated=3 * pixels * (1 + FLOAT))
    size = math.ceil(image_size / 2)
    yield make.conv_norm(3, config.stem_channels, before=pixels, after=size**2, has_dx=False)
    channels = config.stem_channels
    first = len(config.channels) - len(config.depths)
    for stage, out in enumerate(config.channels):
        for block in range(config.conv_blocks[stage]):
            before = size**2
            if block == 0 and stage > 0:
                size = math.ceil(size / 2)
            yield from make.inverted_residual(channels, out, before=before, after=size**2)
            channels = out
        if stage >= first:
            yield from make.transformer(stage - first, channels, pixels=size**2, tokens=4 * math.ceil(size / 2) ** 2)
    yield make.conv_norm(channels, channels * config.final_expansion, before=size**2, after=size**2)


@dataclass(frozen=True)
class _Fused:
    """What `kernels.network` returns as kept, operator by operator."""

    config: ModelConfig
    kept: int
    """Bytes of a value of the maps that convolutions keep."""

    def conv_norm(self, inputs: int, outputs: int, *, before: int, after: int, has_dx: bool = True) -> Part:
        return Part(
            output=FLOAT * outputs * after,
            kept=self.kept * outputs * after,
            gradients=FLOAT * inputs * before if has_dx else 0,
            evaluated=FLOAT * (inputs * before + outputs * after),
        )

    def inverted_residual(self, inputs: int, outputs: int, *, before: int, after: int) -> Iterator[Part]:
        hidden = inputs * self.config.expansion
        yield Part(
            output=FLOAT * outputs * after,
            kept=self.kept * (hidden * before + hidden * after + outputs * after),
            gradients=FLOAT * inputs * before,
            scratch=(FLOAT * hidden * after, FLOAT * hidden * before),
            evaluated=FLOAT * (inputs * before + outputs * after),
        )

    def transformer(self, index: int, channels: int, *, pixels: int, tokens: int) -> Iterator[Part]:
        features, hidden = self.config.features[index], self.config.hidden[index]
        of_map, of_tokens = FLOAT * features * pixels, FLOAT * features * tokens
        yield self.conv_norm(channels, channels, before=pixels, after=pixels)
        yield Part(  # to tokens
            output=of_tokens,
            passing=of_map,
            gradients=of_map + FLOAT * channels * pixels,
            evaluated=FLOAT * channels * pixels + of_map + of_tokens,
        )
        for _ in range(self.config.depths[index]):
            yield Part(  # qkv, attended, between, hidden
                output=of_tokens,
                kept=5 * of_tokens + FLOAT * hidden * tokens,
                passing=of_map,
                gradients=of_tokens,
                evaluated=2 * of_tokens + of_map,
            )
        fused = self.conv_norm(2 * channels, channels, before=pixels, after=pixels)
        yield Part(  # LayerNorm, back to a map, concatenation
            output=FLOAT * 2 * channels * pixels,
            kept=of_map + self.kept * channels * pixels + 2 * FLOAT * tokens,
            passing=of_tokens + of_map + FLOAT * channels * pixels,
            gradients=2 * FLOAT * channels * pixels + of_map + of_tokens,
            evaluated=FLOAT * 4 * channels * pixels,
        )
        yield fused


@dataclass(frozen=True)
class _Plain:
    """What MindSpore's own operators and their gradients need, operator by operator."""

    config: ModelConfig
    value: int
    """Bytes of one."""

    def conv_norm(
        self, inputs: int, outputs: int, *, before: int, after: int, has_dx: bool = True, activates: bool = True
    ) -> Part:
        """The convolution's output, and that of BatchNorm where SiLU follows."""
        of_map = self.value * outputs * after
        of_input = self.value * inputs * before
        return Part(
            output=of_map,
            kept=of_map * (2 if activates else 1),
            gradients=max(of_map, of_input if has_dx else 0),
            evaluated=of_input + 2 * of_map,
        )

    def inverted_residual(self, inputs: int, outputs: int, *, before: int, after: int) -> Iterator[Part]:
        hidden = inputs * self.config.expansion
        yield self.conv_norm(inputs, hidden, before=before, after=before)
        yield self.conv_norm(hidden, hidden, before=before, after=after)
        yield self.conv_norm(hidden, outputs, before=after, after=after, activates=False)

    def transformer(self, index: int, channels: int, *, pixels: int, tokens: int) -> Iterator[Part]:
        features, hidden = self.config.features[index], self.config.hidden[index]
        of_map, of_tokens = self.value * features * pixels, self.value * features * tokens
        weights = self.value * self.config.heads * tokens * (tokens // 4)  # of attention
        yield self.conv_norm(channels, channels, before=pixels, after=pixels)
        yield Part(output=of_tokens, passing=of_map, gradients=of_map + of_tokens, evaluated=of_map + 2 * of_tokens)
        for _ in range(self.config.depths[index]):
            # Kept are both LayerNorms, q, k, v, what is attended, the sum between, both masks of dropout, and fc1
            # before and after SiLU.
            yield Part(
                output=of_tokens,
                kept=9 * of_tokens + weights + 2 * self.value * hidden * tokens,
                passing=weights,
                gradients=2 * weights + 3 * of_tokens,
                evaluated=6 * of_tokens + 2 * weights,
            )
        yield Part(output=of_map, passing=of_tokens, gradients=2 * of_tokens, evaluated=of_map + 2 * of_tokens)
        yield self.conv_norm(features, channels, before=pixels, after=pixels)
        yield Part(
            output=self.value * 2 * channels * pixels,
            gradients=self.value * 2 * channels * pixels,
            evaluated=self.value * 4 * channels * pixels,
        )
        yield self.conv_norm(2 * channels, channels, before=pixels, after=pixels)
