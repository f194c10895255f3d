"""A generated image folder: to a decoder, its files have the size and the detail of photographs."""

from __future__ import annotations

import json
import os
import secrets
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mvit.errors import DatasetError, Problem

MARK = "synthetic.json"
"""Marks a directory as generated, and says how; one without it is never replaced."""
ENDINGS = {"jpeg": "jpg", "png": "png"}
QUALITY = 90
OCTAVES = ((4, 0.6), (16, 0.35), (64, 0.25), (256, 0.3), (4096, 0.13))
"""Cells of noise across the width, and their strength: a JPEG of 500x375 has about 100 KB, as ImageNet's."""


def write_image_folder(
    out: Path,
    *,
    classes: int = 4,
    train: int = 64,
    val: int = 16,
    size: tuple[int, int] = (500, 375),
    seed: int = 1,
    format: Literal["jpeg", "png"] = "jpeg",  # noqa: A002  the option's name
    overwrite: bool = False,
) -> Path:
    """Write train/<class>/<n>.jpg and val/...; `train` and `val` count images in all; `size` is (width, height).

    Each image is a function of (seed, split, number). Whole or absent. Raises `DatasetError`, OSError.
    """
    if min(train, val) < 1 or train < classes:
        rule = f"is too few images for {classes} classes"
        raise DatasetError(Problem("--train", train, rule, f"use at least {classes}"))
    if out.exists() and any(out.iterdir()) if out.is_dir() else out.exists():
        if not overwrite:
            raise DatasetError(Problem("OUT", str(out), "already exists", "use another directory, or --overwrite"))
        if not (out / MARK).is_file():
            raise DatasetError(Problem("OUT", str(out), f"was not generated: it has no {MARK}", "remove it yourself"))
    out.parent.mkdir(parents=True, exist_ok=True)
    room = out.with_name(f".{out.name}.{os.getpid()}.{secrets.token_hex(4)}")
    room.mkdir()
    try:
        jobs = [
            (split, number, number % classes)
            for split, count in (("train", train), ("val", val))
            for number in range(count)
        ]
        for label in range(classes):
            for split in ("train", "val"):
                (room / split / _name(label)).mkdir(parents=True)

        def write(job: tuple[str, int, int]) -> None:
            split, number, label = job
            random = np.random.default_rng((seed, split == "val", number))
            image = Image.fromarray(picture(random, label=label, classes=classes, size=size))
            path = room / split / _name(label) / f"{number:07d}.{ENDINGS[format]}"
            image.save(path, format, **({"quality": QUALITY} if format == "jpeg" else {}))

        with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
            list(pool.map(write, jobs))
        options = {"classes": classes, "train": train, "val": val, "size": size, "seed": seed, "format": format}
        (room / MARK).write_text(json.dumps(options) + "\n")
        if out.exists():
            shutil.rmtree(out)
        room.replace(out)
    except BaseException:
        shutil.rmtree(room, ignore_errors=True)
        raise
    return out


def picture(random: np.random.Generator, *, label: int, classes: int, size: tuple[int, int]) -> NDArray[np.uint8]:
    """(H, W, 3) uint8: noise whose power falls with frequency, and a grating whose angle depends on the class."""
    width, height = size
    image = np.full((height, width, 3), 127.0, np.float32)
    for cells, strength in OCTAVES:
        shape = (min(height, max(2, cells * height // width)), min(width, cells), 3)
        # NumPy's types of `integers` are incomplete.
        noise: NDArray[np.uint8] = cast(Any, random).integers(0, 256, shape, np.uint8)
        smooth = Image.fromarray(noise).resize(size, Image.Resampling.BILINEAR)
        image += (np.asarray(smooth, np.float32) - 127.5) * strength
    angle, phase = np.pi * label / classes, random.uniform(0, 2 * np.pi)
    rows, columns = np.ogrid[0:height, 0:width]
    along = (rows * np.sin(angle) + columns * np.cos(angle)) / min(size)
    grating = 32 * np.sin(2 * np.pi * (6 + label % 3) * along + phase)
    return (image + grating[..., None]).clip(0, 255).astype(np.uint8)


def _name(label: int) -> str:
    return f"class_{label:04d}"
