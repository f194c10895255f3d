"""Checkpoints: the tensors of a network and its optimizer, to files and back, whole or absent."""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import mindspore as ms
import numpy as np
from mindspore import nn
from safetensors.numpy import load_file, save

from mvit.config import CheckpointConfig
from mvit.errors import first_line
from mvit.files import file_digest, write_bytes
from mvit.rundir.checkpoints import Checkpoint, checkpoint_file, newest_first
from mvit.rundir.sidecar import Sidecar, sidecar_of

HEAD = ("head.weight", "head.bias")
"""What the number of classes shapes."""
_OF_RANK = re.compile(r"^rank\d+\.")


class CheckpointError(Exception):
    """A checkpoint that cannot be used; one line."""


def write(checkpoint: Checkpoint, tensors: dict[str, np.ndarray], sidecar: Sidecar) -> None:
    """Write the tensors, then the sidecar that vouches for them.

    A step that is written again after a resume has the same bits, so a sidecar never vouches for other tensors.
    """
    data = save(tensors, metadata={"format": "mvit"})  # its save_file raises errors, and leaves files, of its own kind
    write_bytes(checkpoint.tensors, data)
    checkpoint.write_sidecar(sidecar.with_digest(hashlib.sha256(data).hexdigest()))


@dataclass(frozen=True)
class Loaded:
    """The newest whole checkpoint, and one line for each newer one that is damaged."""

    checkpoint: Checkpoint
    tensors: dict[str, np.ndarray]
    sidecar: Sidecar
    damaged: tuple[str, ...]


def load_newest(folder: Path) -> Loaded | None:
    """The checkpoint to continue from; None for a run without one. Raises `CheckpointError` if all are damaged."""
    damaged: list[str] = []
    for checkpoint in newest_first(folder):
        try:
            tensors = read(checkpoint.tensors)
            _must_be_finite(tensors, source=checkpoint.tensors)
            return Loaded(checkpoint, tensors, checkpoint.read_sidecar(), tuple(damaged))
        except (CheckpointError, OSError, ValueError, KeyError, TypeError) as error:
            damaged.append(first_line(error))
    if damaged:
        raise CheckpointError(f"no checkpoint in {folder} is whole: {damaged[0]}")
    return None


def snapshot(cells: Sequence[nn.Cell]) -> dict[str, np.ndarray]:
    """Every parameter of the cells by name, copied from the device; synchronises."""
    parameters = {parameter.name: parameter for cell in cells for parameter in cell.get_parameters()}
    return {name: np.array(parameter.asnumpy()) for name, parameter in parameters.items()}


def restore(cells: Sequence[nn.Cell], tensors: dict[str, np.ndarray], *, rank: int, source: Path) -> None:
    """Set every parameter of the cells, bit for bit; a worker's own running statistics are stored under its rank."""
    parameters = {p.name: p for cell in cells for p in cell.get_parameters()}
    if foreign := sorted(name for name in tensors if _OF_RANK.sub("", name) not in parameters):
        raise CheckpointError(
            f"{source} holds {foreign[0]}, which this run does not have; it belongs to another configuration"
        )
    for parameter in parameters.values():
        value = tensors.get(of_rank(rank, parameter.name), tensors.get(parameter.name))
        if value is None:
            raise CheckpointError(f"{source} lacks {parameter.name}; it belongs to another configuration")
        if value.shape != parameter.shape:
            raise CheckpointError(f"{source}: {parameter.name} has shape {value.shape}, not {parameter.shape}")
        if value.dtype != (dtype := ms.dtype_to_nptype(parameter.dtype)):
            raise CheckpointError(f"{source}: {parameter.name} is {value.dtype}, not {np.dtype(dtype)}")
        parameter.set_data(ms.Tensor(value))


def of_rank(rank: int, name: str) -> str:
    """The name under which a checkpoint holds a tensor of a worker other than rank 0."""
    return f"rank{rank}.{name}" if rank else name


def read(path: Path) -> dict[str, np.ndarray]:
    """The tensors of a file, verified against its sidecar if there is one (imported weights have none)."""
    name = path.with_suffix(".json").name
    try:
        sidecar = sidecar_of(path)
        if sidecar is None and path.parent.name == "checkpoints":
            raise CheckpointError(f"{path} is incomplete: it has no {name}")
        if sidecar and file_digest(path) != sidecar.sha256:
            raise CheckpointError(f"{path} is damaged: its sha256 is not the one in {name}")
        return load_file(path)
    except CheckpointError:
        raise
    except Exception as error:  # safetensors raises its own type, which it does not export
        raise CheckpointError(f"{path} cannot be read: {first_line(error)}") from error


@dataclass(frozen=True)
class Weights:
    """The network's own tensors of a file, and which they are."""

    source: Path
    which: Literal["raw", "ema"]
    tensors: dict[str, np.ndarray]


def weights_of(request: CheckpointConfig) -> Weights:
    """The weights of a file or a run folder: the raw ones or their averages; `best` is what the sidecar says."""
    path = checkpoint_file(Path(request.checkpoint))
    if path is None:
        raise CheckpointError(f"{request.checkpoint} has no best checkpoint yet")
    tensors = read(path)
    which = request.weights
    if which == "best":
        sidecar = sidecar_of(path)
        which = (sidecar and sidecar.best_of) or "raw"
    if which == "raw":
        return Weights(path, "raw", tensors)
    averages = {name.removeprefix("ema."): value for name, value in tensors.items() if name.startswith("ema.")}
    if not averages:
        raise CheckpointError(f"{path} holds no averaged weights; use weights=raw")
    return Weights(path, "ema", averages)


def initialise(net: nn.Cell, weights: Weights) -> tuple[str, ...]:
    """Start from weights; returns the parameters that keep their random values: a head of other classes."""
    tensors = weights.tensors
    new = tuple(
        name
        for name, parameter in net.parameters_dict().items()
        if name in HEAD and name in tensors and tensors[name].shape != parameter.shape
    )
    drawn = {name: net.parameters_dict()[name].asnumpy() for name in new}
    load(net, {**tensors, **drawn}, source=weights.source)
    return new


def load(net: nn.Cell, tensors: dict[str, np.ndarray], *, source: Path) -> None:
    """Set every parameter of the network; names and shapes must match. Moments and the like are ignored."""
    for name, parameter in net.parameters_dict().items():
        if name not in tensors:
            raise CheckpointError(f"{source} lacks {name}; it belongs to another model")
        value = tensors[name]
        if value.shape != parameter.shape:
            raise CheckpointError(f"{source}: {name} has shape {value.shape}, the network needs {parameter.shape}")
        _must_be_finite({name: value}, source=source)
        parameter.set_data(ms.Tensor(value.astype(np.float32)))


def _must_be_finite(tensors: dict[str, np.ndarray], *, source: Path) -> None:
    for name, value in tensors.items():
        if not np.isfinite(value).all():
            raise CheckpointError(f"{source}: {name} has values that are not finite")
