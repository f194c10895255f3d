"""What the parent sees of a run's checkpoints: steps and hashes, no tensors."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from mvit.files import file_digest, read_json, read_sealed
from mvit.rundir.paths import RunDir


@dataclass(frozen=True)
class Checkpoint:
    """A pair of files: tensors, and the sidecar that vouches for them."""

    step: int
    sidecar: Path

    @property
    def tensors(self) -> Path:
        return self.sidecar.with_suffix(".safetensors")

    def is_whole(self) -> bool:
        """Whether the tensors are those that the sidecar vouches for; reads all of them."""
        with suppress(OSError, ValueError, KeyError, TypeError):
            return file_digest(self.tensors) == read_sealed(self.sidecar)["sha256"]
        return False


def newest_first(folder: RunDir) -> Iterator[Checkpoint]:
    """The checkpoints that were written to their end, unverified."""
    for path in sorted(folder.checkpoints.glob("step-*.json"), reverse=True):
        number = path.stem.removeprefix("step-")
        if number.isdecimal() and path.with_suffix(".safetensors").exists():
            yield Checkpoint(int(number), path)


def newest_step(folder: RunDir) -> int | None:
    """The step to continue after; reads its checkpoint."""
    found = newest_whole(folder)
    return found.step if found else None


def newest_whole(folder: RunDir) -> Checkpoint | None:
    """The newest one whose hash is right."""
    return next((found for found in newest_first(folder) if found.is_whole()), None)


def best_whole(folder: RunDir) -> Checkpoint | None:
    """The one that best.json names, if it is whole."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        stem = str(read_json(folder.checkpoints / "best.json")["file"])
        return next((c for c in newest_first(folder) if c.sidecar.stem == stem and c.is_whole()), None)
    return None


def give(checkpoint: Checkpoint, folder: RunDir) -> None:
    """Put a checkpoint into another run, the sidecar last. Its files never change in place, so a link does."""
    for path in (checkpoint.tensors, checkpoint.sidecar):
        new = folder.checkpoints / path.name
        try:
            os.link(path, new)
        except OSError:  # another file system, or one without links
            shutil.copy2(path, new)


def checkpoint_file(path: Path) -> Path | None:
    """The file of a checkpoint: itself, or the best of a run folder, if it has one."""
    if not path.is_dir():
        return path
    best = path / "checkpoints" / "best.json"
    return best.with_name(f"{read_json(best)['file']}.safetensors") if best.exists() else None


def sidecar_of(folder: Path, step: int) -> Path:
    """The sidecar of the checkpoint of `step`; the tensors are beside it."""
    return folder / f"step-{step:08d}.json"
