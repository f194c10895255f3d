"""The handwritten digits as an image folder, for whatever takes files."""

from __future__ import annotations

import os
import secrets
import shutil
from pathlib import Path

from PIL import Image

from mvit.data.digits import Enlarged, digits
from mvit.errors import DatasetError, Problem


def write_digits(out: Path, *, size: int) -> tuple[int, int]:
    """Write train/<digit>/<n>.png and val/...; returns how many there are of each.

    In the order of their names, the images are those of data=digits at `data.image_size=size`, in its order. The folder
    appears complete or not at all. Raises `DatasetError` and `OSError`.
    """
    if out.exists():
        raise DatasetError(Problem("OUT", str(out), "already exists", "use another directory"))
    splits = dict(zip(("train", "val"), digits(size), strict=True))
    out.parent.mkdir(parents=True, exist_ok=True)
    room = out.with_name(f".{out.name}.{os.getpid()}.{secrets.token_hex(4)}")
    try:
        for name, split in splits.items():
            _write(room / name, split)
        room.rename(out)
    except BaseException:
        shutil.rmtree(room, ignore_errors=True)
        raise
    return len(splits["train"].labels), len(splits["val"].labels)


def _write(folder: Path, split: Enlarged) -> None:
    for number, label in enumerate(split.labels.tolist()):
        path = folder / str(label) / f"{number:04d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(split.images[number]).save(path)
