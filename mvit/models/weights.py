"""Weights of other libraries, imported under our names.

timm and transformers as `.safetensors`, MindCV as MindSpore's `.ckpt`. A checkpoint is useless without the conventions
it was trained with (normalisation, channel order, crop, epsilon), so they are stored with it as metadata.

    WeightsError        a file that cannot be imported; one line: file, problem, remedy
"""

from __future__ import annotations

import json
import os
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file
from safetensors.numpy import save as serialise

from mvit.config import ModelConfig
from mvit.console import mvit_command
from mvit.models import spec
from mvit.places import CONF

Library = Literal["timm", "transformers", "mindcv"]
Triple = tuple[float, float, float]

SIZES = ("xx_small", "x_small", "small")
PICKLES = {".pth", ".pt", ".bin", ".pkl", ".pickle"}
MODELS = CONF / "model"


class WeightsError(Exception):
    """Weights that cannot be imported or written; one line."""


@dataclass(frozen=True)
class Imported:
    """Every tensor of `MobileViT` by our name, in float32, and the conventions for images and network."""

    tensors: dict[str, NDArray[np.float32]]
    library: Library
    model: str  # a file of conf/model
    num_classes: int
    mean: Triple
    std: Triple
    channel_order: Literal["rgb", "bgr"]
    eval_crop_fraction: float
    interpolation: Literal["bilinear", "bicubic"]
    antialias: bool
    layer_norm_eps: float
    token_projection: Literal["linear", "conv_norm_silu"]


@dataclass(frozen=True)
class Naming:
    """The names that a library gives the tensors of this network.

    `cells` are templates: {stage} is 0 to 4, {number} is {stage} + 1, {block} counts within the stage, {layer} within
    the transformer, {depth} is the number of its layers. A key "downsample.<cell>" applies to stages with a
    transformer.
    """

    library: Library
    mark: str  # a prefix of names that no other library uses
    cells: dict[str, str]
    leaves: dict[str, str]
    fused: bool  # query, key and value are one Dense layer, in this order
    conventions: dict[str, Any]


def _torch_leaves(convolution: str, norm: str) -> dict[str, str]:
    return {
        "conv.weight": f"{convolution}.weight",
        "norm.gamma": f"{norm}.weight",
        "norm.beta": f"{norm}.bias",
        "norm.moving_mean": f"{norm}.running_mean",
        "norm.moving_variance": f"{norm}.running_var",
        "gamma": "weight",
        "beta": "bias",
    }


TIMM = Naming(
    library="timm",
    mark="stem.bn.",
    cells={
        "stem": "stem",
        "expand": "stages.{stage}.{block}.conv1_1x1",
        "depthwise": "stages.{stage}.{block}.conv2_kxk",
        "project": "stages.{stage}.{block}.conv3_1x1",
        "local": "stages.{stage}.1.conv_kxk",
        "to_tokens": "stages.{stage}.1.conv_1x1",
        "norm1": "stages.{stage}.1.transformer.{layer}.norm1",
        "attention.qkv": "stages.{stage}.1.transformer.{layer}.attn.qkv",
        "attention.out": "stages.{stage}.1.transformer.{layer}.attn.proj",
        "norm2": "stages.{stage}.1.transformer.{layer}.norm2",
        "fc1": "stages.{stage}.1.transformer.{layer}.mlp.fc1",
        "fc2": "stages.{stage}.1.transformer.{layer}.mlp.fc2",
        "norm": "stages.{stage}.1.norm",
        "from_tokens": "stages.{stage}.1.conv_proj",
        "fuse": "stages.{stage}.1.conv_fusion",
        "final": "final_conv",
        "head": "head.fc",
    },
    leaves=_torch_leaves("conv", "bn"),
    fused=True,
    conventions={
        "mean": (0.0, 0.0, 0.0),
        "std": (1.0, 1.0, 1.0),
        "channel_order": "rgb",
        "eval_crop_fraction": 0.9,
        "interpolation": "bicubic",
        "antialias": True,
        "layer_norm_eps": 1e-5,
        "token_projection": "linear",
    },
)

_HF_BLOCK = "mobilevit.encoder.layer.{stage}"
_HF_LAYER = _HF_BLOCK + ".transformer.layer.{layer}"

TRANSFORMERS = Naming(
    library="transformers",
    mark="mobilevit.",
    cells={
        "stem": "mobilevit.conv_stem",
        "expand": _HF_BLOCK + ".layer.{block}.expand_1x1",
        "depthwise": _HF_BLOCK + ".layer.{block}.conv_3x3",
        "project": _HF_BLOCK + ".layer.{block}.reduce_1x1",
        "downsample.expand": _HF_BLOCK + ".downsampling_layer.expand_1x1",
        "downsample.depthwise": _HF_BLOCK + ".downsampling_layer.conv_3x3",
        "downsample.project": _HF_BLOCK + ".downsampling_layer.reduce_1x1",
        "local": _HF_BLOCK + ".conv_kxk",
        "to_tokens": _HF_BLOCK + ".conv_1x1.convolution",
        "norm1": _HF_LAYER + ".layernorm_before",
        "attention.query": _HF_LAYER + ".attention.attention.query",
        "attention.key": _HF_LAYER + ".attention.attention.key",
        "attention.value": _HF_LAYER + ".attention.attention.value",
        "attention.out": _HF_LAYER + ".attention.output.dense",
        "norm2": _HF_LAYER + ".layernorm_after",
        "fc1": _HF_LAYER + ".intermediate.dense",
        "fc2": _HF_LAYER + ".output.dense",
        "norm": _HF_BLOCK + ".layernorm",
        "from_tokens": _HF_BLOCK + ".conv_projection",
        "fuse": _HF_BLOCK + ".fusion",
        "final": "mobilevit.conv_1x1_exp",
        "head": "classifier",
    },
    leaves=_torch_leaves("convolution", "normalization"),
    fused=False,
    conventions={
        "mean": (0.0, 0.0, 0.0),
        "std": (1.0, 1.0, 1.0),
        "channel_order": "bgr",
        "eval_crop_fraction": 256 / 288,
        "interpolation": "bilinear",
        "antialias": True,
        "layer_norm_eps": 1e-5,
        "token_projection": "linear",
    },
)

_MINDCV_LAYER = "layer_{number}.1.global_rep.{layer}"

MINDCV = Naming(
    library="mindcv",
    mark="conv_1.features.",
    cells={
        "stem": "conv_1",
        "expand": "layer_{number}.{block}.block.0",
        "depthwise": "layer_{number}.{block}.block.1",
        "project": "layer_{number}.{block}.block.2",
        "local": "layer_{number}.1.local_rep.0",
        "to_tokens": "layer_{number}.1.local_rep.1",
        "norm1": _MINDCV_LAYER + ".pre_norm_mha.0",
        "attention.qkv": _MINDCV_LAYER + ".pre_norm_mha.1.qkv_proj",
        "attention.out": _MINDCV_LAYER + ".pre_norm_mha.1.out_proj",
        "norm2": _MINDCV_LAYER + ".pre_norm_ffn.0",
        "fc1": _MINDCV_LAYER + ".pre_norm_ffn.1",
        "fc2": _MINDCV_LAYER + ".pre_norm_ffn.4",
        "norm": "layer_{number}.1.global_rep.{depth}",
        "from_tokens": "layer_{number}.1.conv_proj",
        "fuse": "layer_{number}.1.fusion",
        "final": "conv_1x1_exp",
        "head": "classifier.3",
    },
    leaves={
        "conv.weight": "features.0.weight",
        "norm.gamma": "features.1.gamma",
        "norm.beta": "features.1.beta",
        "norm.moving_mean": "features.1.moving_mean",
        "norm.moving_variance": "features.1.moving_variance",
    },
    fused=True,
    conventions={
        "mean": (0.485, 0.456, 0.406),
        "std": (0.229, 0.224, 0.225),
        "channel_order": "rgb",
        "eval_crop_fraction": 0.875,
        "interpolation": "bilinear",
        "antialias": False,
        "layer_norm_eps": 1e-7,
        "token_projection": "conv_norm_silu",
    },
)

NAMINGS = (TIMM, TRANSFORMERS, MINDCV)


def convert(source: Path, *, networks: Sequence[ModelConfig] = ()) -> Imported:
    """Read a checkpoint of timm, transformers or MindCV. Uses every tensor in it, and fills every one of ours.

    `networks` are those that it may be of, instead of the sizes in conf/model.
    """
    tensors = {k: v for k, v in _read(source).items() if not k.endswith("num_batches_tracked")}
    naming = _naming(source, tensors)
    config, num_classes, shapes = _recognise(source, naming, tensors, networks or _sizes())

    ours: dict[str, NDArray[np.float32]] = {}
    used: set[str] = set()
    for name, shape in shapes.items():
        theirs, third = _place(naming, name, config)
        if theirs not in tensors:
            raise WeightsError(f"{source}: missing tensor {theirs} of {config.name}; use the complete checkpoint")
        expected = shape if third is None else (3 * shape[0], *shape[1:])
        if tensors[theirs].shape != expected:
            rule = f"has shape {tensors[theirs].shape}, expected {expected} for {config.name}"
            raise WeightsError(f"{source}: {theirs} {rule}; use a checkpoint of the unmodified model")
        used.add(theirs)
        value = _float32(source, theirs, tensors[theirs])
        ours[name] = value if third is None else np.split(value, 3)[third]
    if extra := sorted(tensors.keys() - used):
        more = f" and {len(extra) - 1} more" if len(extra) > 1 else ""
        what = f"unexpected tensor {extra[0]}{more}: not part of {config.name}"
        raise WeightsError(f"{source}: {what}; use a checkpoint of the unmodified model, with weights only")
    return Imported(
        tensors=ours, library=naming.library, model=config.name, num_classes=num_classes, **naming.conventions
    )


def save(imported: Imported, out: Path, *, overwrite: bool = False) -> None:
    """Write `.safetensors`, completely or not at all; `load_metadata` reads the conventions back."""
    if out.suffix != ".safetensors":
        raise WeightsError(f"{out}: the output format is .safetensors; use that extension")
    if out.exists() and not overwrite:
        raise WeightsError(f"{out} already exists; choose another name, or use --overwrite")
    conventions = {k: json.dumps(v) for k, v in vars(imported).items() if k != "tensors"}
    tensors = {name: np.ascontiguousarray(value) for name, value in imported.tensors.items()}
    temporary = out.with_name(f".{out.name}.{os.getpid()}.{secrets.token_hex(4)}")
    try:
        with temporary.open("xb") as file:
            file.write(serialise(tensors, metadata={"format": "mvit", **conventions}))
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(out)
    except OSError as error:
        raise WeightsError(f"{out} cannot be written: {error.strerror}; choose another path") from error
    finally:
        temporary.unlink(missing_ok=True)


def load_metadata(path: Path) -> dict[str, Any]:
    """The metadata that `save` wrote: library, model, num_classes and the conventions."""
    try:
        with safe_open(path, framework="np") as file:
            metadata = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path} cannot be read: {_first_line(error)}; import it again") from error
    if metadata.pop("format", None) != "mvit" or "library" not in metadata:
        raise WeightsError(f"{path} has no metadata of mvit; import it with: {mvit_command('weights', path, 'OUT')}")
    return {key: json.loads(value) for key, value in metadata.items()}


def _read(source: Path) -> dict[str, NDArray[Any]]:
    ending = source.suffix.lower()
    if ending in PICKLES:
        raise _pickle(source)
    if ending not in (".safetensors", ".ckpt"):
        raise WeightsError(f"{source} is neither a .safetensors nor a .ckpt file; convert it to .safetensors first")
    try:
        with source.open("rb") as file:
            head = file.read(9)
    except OSError as error:
        raise WeightsError(f"{source} cannot be read: {error.strerror}; check the path") from error
    # A .safetensors file starts with a length, which may look like either magic number; its ninth byte is always {.
    if head.startswith((b"\x80", b"PK")) and head[8:] != b"{":
        raise _pickle(source)
    return _read_safetensors(source) if ending == ".safetensors" else _read_ckpt(source)


def _pickle(source: Path) -> WeightsError:
    what = "is a PyTorch pickle, which can execute code when read"
    return WeightsError(f"{source} {what}; convert it to .safetensors first")


def _read_safetensors(source: Path) -> dict[str, NDArray[Any]]:
    try:
        return load_file(source)
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{source} cannot be read: {_first_line(error)}; download it again") from error
    except (KeyError, TypeError, AttributeError) as error:  # a type that NumPy lacks, such as bfloat16
        raise WeightsError(
            f"{source} contains a type that NumPy does not support: {error}; save it as float32 first"
        ) from error


def _read_ckpt(source: Path) -> dict[str, NDArray[Any]]:
    import mindspore as ms

    try:
        return {name: value.asnumpy() for name, value in ms.load_checkpoint(str(source)).items()}
    except Exception as error:  # it raises protobuf's errors, ValueError, TypeError, RuntimeError
        what = "cannot be read as a MindSpore checkpoint: it is damaged or has another format"
        raise WeightsError(f"{source} {what}; download it again") from error


def _naming(source: Path, tensors: Mapping[str, NDArray[Any]]) -> Naming:
    for naming in NAMINGS:
        if any(name.startswith(naming.mark) for name in tensors):
            return naming
    if "stem.norm.gamma" in tensors:
        raise WeightsError(f"{source} already uses mvit's names; use it as it is")
    raise WeightsError(f"{source} is not a MobileViT of timm, transformers or MindCV; use one of theirs")


def _recognise(
    source: Path, naming: Naming, tensors: Mapping[str, NDArray[Any]], networks: Sequence[ModelConfig]
) -> tuple[ModelConfig, int, dict[str, tuple[int, ...]]]:
    """The network that most shapes agree with: its configuration, number of classes, and expected shapes."""
    bias = f"{naming.cells['head']}.bias"
    if bias not in tensors or tensors[bias].ndim != 1:
        raise WeightsError(f"{source}: missing tensor {bias} of the classifier; use a checkpoint for classification")
    num_classes = len(tensors[bias])
    best = None
    own = {key: naming.conventions[key] for key in ("layer_norm_eps", "token_projection")}
    for network in networks:
        config = network.model_copy(update=own)
        shapes = spec.parameter_shapes(config, num_classes=num_classes)
        places = {name: _place(naming, name, config)[0] for name in shapes}
        agree = sum(theirs in tensors and tensors[theirs].shape == shapes[name] for name, theirs in places.items())
        if best is None or agree > best[0]:
            best = (agree, config, shapes)
    assert best is not None
    agree, config, shapes = best
    if 2 * agree < len(shapes):
        names = ", ".join(network.name for network in networks)
        raise WeightsError(f"{source} is not a MobileViT of size {names}; use one of these")
    return config, num_classes, shapes


def _sizes() -> list[ModelConfig]:
    from omegaconf import OmegaConf

    files = (OmegaConf.load(MODELS / f"{size}.yaml") for size in SIZES)
    return [ModelConfig.model_validate(OmegaConf.to_container(file)) for file in files]


_OURS = re.compile(
    r"(?:stages\.(?P<stage>\d)\.(?P<block>\d)\.|transformers\.(?P<index>\d)\.(?:layers\.(?P<layer>\d)\.)?)?"
    r"(?P<cell>(?:attention\.)?[a-z0-9_]+)\.(?P<leaf>.+)"
)


def _place(naming: Naming, name: str, config: ModelConfig) -> tuple[str, int | None]:
    """The library's name for our tensor, and which third of its rows it is if they are fused."""
    parts = _OURS.fullmatch(name)
    assert parts, name
    cell, leaf = parts["cell"], parts["leaf"]
    first = len(config.channels) - len(config.depths)
    if parts["index"]:
        stage, depth = first + int(parts["index"]), config.depths[int(parts["index"])]
    else:
        stage, depth = int(parts["stage"] or 0), 0
    third = None
    if naming.fused and cell in ("attention.query", "attention.key", "attention.value"):
        third = ("attention.query", "attention.key", "attention.value").index(cell)
        cell = "attention.qkv"
    if stage >= first:
        cell = f"downsample.{cell}" if f"downsample.{cell}" in naming.cells else cell
    place = naming.cells[cell].format(
        stage=stage, number=stage + 1, block=parts["block"], layer=parts["layer"], depth=depth
    )
    return f"{place}.{naming.leaves.get(leaf, leaf)}", third


def _float32(source: Path, name: str, value: NDArray[Any]) -> NDArray[np.float32]:
    if value.dtype.kind != "f":
        raise WeightsError(f"{source}: {name} has type {value.dtype}, expected a float; save it as float32 first")
    with np.errstate(over="ignore"):  # overflow is detected below
        value = value.astype(np.float32)
    if not np.isfinite(value).all():
        raise WeightsError(f"{source}: {name} contains non-finite values; use another checkpoint")
    return value


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
