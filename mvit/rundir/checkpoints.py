"""Checkpoints as files: their names, their sidecars, which is last and best. No tensors are loaded here.

step-00000352.safetensors   weights, statistics, moments of the optimizer, by parameter name
step-00000352.json          the sidecar (sidecar.py), written after the tensors, so that it vouches for them
last.json, best.json        {"file": "step-00000352"}
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mvit.files import file_digest, read_json, write_json
from mvit.rundir.paths import RunDir
from mvit.rundir.sidecar import Sidecar, read_sidecar, write_sidecar

Tag = Literal["last", "best"]
TENSORS = ".safetensors"


@dataclass(frozen=True)
class Checkpoint:
    """A pair of files: tensors, and the sidecar that vouches for them."""

    folder: Path
    step: int

    @property
    def stem(self) -> str:
        return f"step-{self.step:08d}"

    @property
    def sidecar(self) -> Path:
        return self.folder / f"{self.stem}.json"

    @property
    def tensors(self) -> Path:
        return self.folder / f"{self.stem}{TENSORS}"

    def read_sidecar(self) -> Sidecar:
        """Raises `OSError`, and `ValueError` where it is not what was written."""
        return read_sidecar(self.sidecar)

    def write_sidecar(self, content: Sidecar) -> None:
        write_sidecar(self.sidecar, content)

    def is_whole(self) -> bool:
        """Whether the tensors are those that the sidecar vouches for; reads all of them."""
        with suppress(OSError, ValueError):
            return file_digest(self.tensors) == self.read_sidecar().sha256
        return False

    def is_evaluated(self) -> bool:
        """Whether the evaluation that is due after this step is done."""
        return self.read_sidecar().progress.evaluated

    def score(self) -> float | None:
        """Top-1 of its evaluation, percent; None without one."""
        with suppress(OSError, ValueError):
            return self.read_sidecar().score
        return None


def newest_first(folder: Path) -> Iterator[Checkpoint]:
    """The checkpoints in a `checkpoints` folder that have a sidecar, unverified."""
    numbers = (path.stem.removeprefix("step-") for path in folder.glob("step-*.json"))
    for step in sorted((int(number) for number in numbers if number.isdecimal()), reverse=True):
        yield Checkpoint(folder, step)


def newest_whole(folder: RunDir) -> Checkpoint | None:
    """The newest checkpoint that is whole; reads it."""
    return next((checkpoint for checkpoint in newest_first(folder.checkpoints) if checkpoint.is_whole()), None)


def newest_step(folder: RunDir) -> int | None:
    """The step to continue after; reads its checkpoint."""
    newest = newest_whole(folder)
    return newest.step if newest else None


def tagged(folder: Path, tag: Tag) -> Checkpoint | None:
    """The last or the best checkpoint, unverified; None where none is named."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        return Checkpoint(folder, int(str(read_json(folder / f"{tag}.json")["file"]).removeprefix("step-")))
    return None


def set_tag(folder: Path, tag: Tag, checkpoint: Checkpoint) -> None:
    write_json(folder / f"{tag}.json", {"file": checkpoint.stem})


def prune(folder: Path, *, keep_last: int, keep_best: int) -> None:
    """Delete all but the newest and the best checkpoints, and what a kill left half written."""
    existing = list(newest_first(folder))
    kept = {checkpoint.stem for tag in ("last", "best") if (checkpoint := tagged(folder, tag))}
    kept |= {checkpoint.stem for checkpoint in existing[:keep_last]}
    scores = {checkpoint.stem: score for checkpoint in existing if (score := checkpoint.score()) is not None}
    kept |= set(sorted(scores, key=lambda stem: (-scores[stem], stem))[:keep_best])
    for file in (*folder.glob("step-*"), *folder.glob(".step-*")):
        with suppress(OSError):
            if file.stem not in kept:
                file.unlink()


def inherit(origin: RunDir, heir: RunDir, newest: Checkpoint) -> None:
    """Give a fork its origin's newest checkpoint, and the best with its predictions until there is a better."""
    best = tagged(origin.checkpoints, "best")
    for tag, checkpoint in (("last", newest), ("best", best)):
        if checkpoint is None or not checkpoint.is_whole():
            continue
        for path in (checkpoint.tensors, checkpoint.sidecar):
            _link(path, heir.checkpoints / path.name)
        set_tag(heir.checkpoints, "last" if tag == "last" else "best", checkpoint)
        if tag == "best":
            for path, own in ((origin.confusion, heir.confusion), (origin.predictions, heir.predictions)):
                if path.exists():
                    shutil.copy2(path, own)


def _link(path: Path, new: Path) -> None:
    """A hard link, since a checkpoint's files never change in place; a copy where there are no links."""
    if new.exists():
        return
    try:
        os.link(path, new)
    except OSError:
        shutil.copy2(path, new)


def run_of(path: Path) -> RunDir:
    """The run folder that weights are named by: itself, or that of a file in its `checkpoints`; it may be none."""
    return RunDir(path if path.is_dir() else path.parent.parent)


def checkpoint_file(path: Path) -> Path | None:
    """The tensors to load: the file itself, or the best checkpoint of a run folder; None where there is none."""
    if not path.is_dir():
        return path
    best = tagged(path / "checkpoints", "best")
    return best.tensors if best else None
