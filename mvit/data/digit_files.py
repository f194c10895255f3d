"""The handwritten digits as an image folder, for whatever takes files."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from mvit.data.digits import Enlarged, digits
from mvit.errors import DatasetError, Problem
from mvit.files import whole_folder


def write_digits(out: Path, *, size: int) -> tuple[int, int]:
    """Write train/<digit>/<n>.png and val/...; returns how many there are of each.

    In the order of their names, the images are those of data=digits at `data.image_size=size`, in its order. The folder
    appears complete or not at all. Raises `DatasetError` and `OSError`.
    """
    if out.exists():
        raise DatasetError(Problem("OUT", str(out), "already exists", "use another directory"))
    splits = dict(zip(("train", "val"), digits(size), strict=True))
    with whole_folder(out) as room:
        for name, split in splits.items():
            _write(room / name, split)
    return len(splits["train"].labels), len(splits["val"].labels)


def _write(folder: Path, split: Enlarged) -> None:
    for number, label in enumerate(split.labels.tolist()):
        path = folder / str(label) / f"{number:04d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(split.images[number]).save(path)
