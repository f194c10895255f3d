"""A model as it is served: a folder of weights, and of what a network has to know beside them."""

from __future__ import annotations

from pathlib import Path

from mvit.config import Frozen, ImagesConfig, ModelConfig, Precision
from mvit.files import read_json_bytes, write_json
from mvit.plan import KernelsPlan

WEIGHTS, ABOUT = "weights.safetensors", "model.json"
COLUMN = "image"
"""The column of the table that a model takes."""


class ServedModel(Frozen):
    """The network of the weights, and the images that it takes."""

    model: ModelConfig
    images: ImagesConfig
    precision: Precision
    kernels: KernelsPlan
    threads: int | None
    """Of the run that the weights are from: with as many, logits have the same bits."""
    onednn_max_isa: str | None
    """What oneDNN was limited to in that run; None for no limit."""
    batch_size: int
    """Images that the graph takes at once."""
    class_names: tuple[str, ...]


def write_about(folder: Path, served: ServedModel) -> None:
    write_json(folder / ABOUT, served.model_dump(mode="json"))


def read_about(folder: Path) -> ServedModel:
    """Raises `OSError`, and `ValueError` for a file that is damaged."""
    return ServedModel.model_validate_json(read_json_bytes(folder / ABOUT))
