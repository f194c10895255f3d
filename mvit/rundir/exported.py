"""exported/: a network in the formats of other programs, and model.json, which says what it takes and gives."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from mvit.config import ExportFormat, Frozen, Strings
from mvit.files import read_json_bytes, write_json

ABOUT = "model.json"
FILES: dict[ExportFormat, str] = {"mindir": "model.mindir", "onnx": "model.onnx"}


def exported_form(path: Path) -> ExportFormat | None:
    """The format of an exported network, by the ending of its name; None for weights."""
    return next((form for form, name in FILES.items() if path.suffix == Path(name).suffix), None)


class ImageInput(Frozen):
    """What the network takes: RGB bytes (batch_size, size, size, 3), which it normalises itself."""

    name: str
    dtype: Literal["uint8"]
    layout: Literal["NHWC"]
    batch_size: int | None
    """None for any number."""
    size: int
    resize_short_side: int
    """Length of the short side that an image is resized to, before its centre is cropped to `size`."""
    eval_crop_fraction: float
    """The data's, which `resize_short_side` follows from."""
    interpolation: str
    antialias: bool


class Exported(Frozen):
    """What one has to know beside the file."""

    model: str
    input: ImageInput
    output: Literal["logits"]
    """float32 (batch_size, classes); a softmax makes probabilities of them."""
    class_names: Strings
    source: str
    """The checkpoint."""
    sha256: dict[ExportFormat, str]
    """Of each file."""


def write_about(folder: Path, exported: Exported) -> None:
    write_json(folder / ABOUT, exported.model_dump(mode="json"))


def read_about(folder: Path) -> Exported:
    """Raises `OSError`, and `ValueError` for a file that is damaged."""
    return Exported.model_validate_json(read_json_bytes(folder / ABOUT))
