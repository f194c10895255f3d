"""Checkpoints: safetensors with a JSON sidecar, whole or absent.

step-00000352.safetensors   weights, statistics, moments of the optimizer, by parameter name
step-00000352.json          step, epoch, metrics, sha256 of the file; written after it, so that it vouches for it
last.json, best.json        {"file": "step-00000352"}
"""

import hashlib
import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import mindspore as ms
import numpy as np
from mindspore import nn
from safetensors.numpy import load_file, save_file

from mvit.config import WeightsInit
from mvit.rundir import fsync_folder, read_json, write_json

HEAD = ("head.weight", "head.bias")
"""What the number of classes shapes."""


class CheckpointError(Exception):
    """A checkpoint that cannot be used; one line."""


def save(
    folder: Path,
    *,
    tensors: dict[str, np.ndarray],
    step: int,
    meta: dict[str, Any],
    tags: list[str],
    keep_last: int,
) -> Path:
    """Write the checkpoint of `step` and point the tags (`last`, `best`) to it.

    Of the others, those of the newest `keep_last` steps stay.
    """
    path = folder / f"step-{step:08d}.safetensors"
    temporary = folder / f".{path.name}.{secrets.token_hex(4)}"
    try:
        save_file(tensors, temporary, metadata={"format": "mvit"})
        with temporary.open("rb") as file:
            digest = _sha(file)
            os.fsync(file.fileno())
        temporary.replace(path)
        fsync_folder(folder)
    finally:
        temporary.unlink(missing_ok=True)
    write_json(path.with_suffix(".json"), {"step": step, **meta, "sha256": digest})
    for tag in tags:
        write_json(folder / f"{tag}.json", {"file": path.stem})
    _prune(folder, keep_last)
    return path


def _sha(file: Any) -> str:
    digest = hashlib.sha256()
    for block in iter(lambda: file.read(1 << 20), b""):
        digest.update(block)
    return digest.hexdigest()


def _prune(folder: Path, keep_last: int) -> None:
    kept = {read_json(folder / f"{tag}.json")["file"] for tag in ("last", "best") if (folder / f"{tag}.json").exists()}
    kept |= {file.stem for file in sorted(folder.glob("step-*.json"))[-keep_last:]}
    for file in (*folder.glob("step-*"), *folder.glob(".step-*")):  # a kill leaves temporary ones
        if file.stem not in kept:
            file.unlink()


def find(path: Path) -> Path:
    """The file of a checkpoint: itself, or the best of a run folder."""
    if path.is_dir():
        best = path / "checkpoints" / "best.json"
        if not best.exists():
            raise CheckpointError(f"{path} has no best checkpoint")
        return best.with_name(read_json(best)["file"] + ".safetensors")
    return path


def read(path: Path) -> dict[str, np.ndarray]:
    """The tensors of a file; a sidecar's sha256 is checked where there is one (imported weights have none)."""
    sidecar = path.with_suffix(".json")
    if path.parent.name == "checkpoints" and not sidecar.exists():
        raise CheckpointError(f"{path} was not written to its end: it has no {sidecar.name}")
    try:
        if sidecar.exists():
            with path.open("rb") as file:
                if _sha(file) != read_json(sidecar)["sha256"]:
                    raise CheckpointError(f"{path} is damaged: its sha256 is not that of {sidecar.name}")
        return load_file(path)
    except CheckpointError:
        raise
    except Exception as error:  # safetensors raises its own type, which it does not export
        raise CheckpointError(f"{path} cannot be read: {str(error).splitlines()[0]}") from error


def state(cells: list[nn.Cell]) -> dict[str, np.ndarray]:
    """Every parameter of the cells by name; copies from the device, so it synchronises."""
    found = {parameter.name: parameter for cell in cells for parameter in cell.get_parameters()}
    return {name: parameter.asnumpy() for name, parameter in found.items()}


def weights_of(path: Path, which: Literal["best", "raw", "ema"]) -> dict[str, np.ndarray]:
    """The network's own tensors of a file: the raw ones or their averages; `best` is what its sidecar says."""
    tensors = read(path)
    sidecar = path.with_suffix(".json")
    if which == "best":
        which = read_json(sidecar).get("best_of", "raw") if sidecar.exists() else "raw"
    averages = {name.removeprefix("ema."): value for name, value in tensors.items() if name.startswith("ema.")}
    if which == "raw":
        return tensors
    if not averages:
        raise CheckpointError(f"{path} holds no averaged weights; ask for the raw ones")
    return averages


@dataclass(frozen=True)
class Started:
    """Where initial weights came from, and the parameters that keep their random ones."""

    source: Path
    weights: str
    new: tuple[str, ...]


def initialise(net: nn.Cell, init: WeightsInit) -> Started:
    """Start from a checkpoint; a head of another number of classes stays as it was drawn."""
    source = find(Path(init.checkpoint))
    tensors = weights_of(source, init.weights)
    new = tuple(
        name
        for name, parameter in net.parameters_dict().items()
        if name in HEAD and name in tensors and tensors[name].shape != parameter.shape
    )
    drawn = {name: net.parameters_dict()[name].asnumpy() for name in new}
    load(net, {**tensors, **drawn}, source=source)
    return Started(source, init.weights, new)


def load(net: nn.Cell, tensors: dict[str, np.ndarray], *, source: Path) -> None:
    """Set every parameter of the network; names and shapes must all be there. Moments and the like are left out."""
    for name, parameter in net.parameters_dict().items():
        if name not in tensors:
            raise CheckpointError(f"{source} lacks {name}; it is of another model")
        value = tensors[name]
        if value.shape != parameter.shape:
            raise CheckpointError(f"{source}: {name} has shape {value.shape}, the network wants {parameter.shape}")
        if not np.isfinite(value).all():
            raise CheckpointError(f"{source}: {name} holds values that are not finite")
        parameter.set_data(ms.Tensor(value.astype(np.float32)))
