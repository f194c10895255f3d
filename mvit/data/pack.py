"""Packing: an image folder becomes MindRecord shards.

Restartable: manifest.json lists the finished shards; only the others are written.
"""

from __future__ import annotations

import fcntl
import os
import shlex
import shutil
import sys
import time
from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import pairwise, repeat
from pathlib import Path
from typing import Literal

from rich.progress import Progress

from mvit.console import PLAIN_EVERY_S, console, launch_command, say
from mvit.data import imagefolder
from mvit.data.listing import Split
from mvit.data.mindrecord import (
    FORMAT,
    MANIFEST,
    Manifest,
    ManifestError,
    Shard,
    fault,
    read_index,
    read_manifest,
    size_fault,
)
from mvit.data.shard_writer import PART, PackError, ShardPlan, Unreadable, write
from mvit.errors import DatasetError, Problem
from mvit.files import write_json
from mvit.program import MVIT

SHARD_BYTES = 1 << 30
"""The approximate size of a shard without --shards."""
ARGUMENTS = {
    "data.root": "SRC",
    "data.train_folder": "--train-folder",
    "data.val_folder": "--val-folder",
    "data.class_names": "--class-names",
}


@dataclass(frozen=True)
class Origin:
    """The image folder to pack."""

    root: str
    train_folder: str
    val_folder: str
    class_names: str | None


def main(
    source: Origin,
    out: Path,
    *,
    shards: int | None,
    on_unreadable: Literal["refuse", "skip"],
    workers: int,
    overwrite: bool,
) -> int:
    """Exit codes: 0 done, 1 failed, 2 invalid request, 130 stopped by Ctrl-C; errors are lines on standard error."""
    try:
        pack(source, out, shards=shards, on_unreadable=on_unreadable, workers=workers, overwrite=overwrite)
    except DatasetError as error:
        problem = replace(error.problem, path=ARGUMENTS.get(error.problem.path, error.problem.path))
        return _complain(2, problem)
    except Unreadable as error:
        remedy = "remove or repair it, or use --on-unreadable skip"
        for path in error.paths:
            _complain(2, Problem("SRC", str(Path(source.root) / path), "cannot be decoded", remedy))
        return 2
    except PackError as error:
        return _complain(1, error)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return _complain(1, f"{where}{error.strerror or error}")
    except KeyboardInterrupt:
        return _complain(130, "stopped; run the same command to continue")
    return 0


def pack(
    source: Origin,
    out: Path,
    *,
    shards: int | None,
    on_unreadable: Literal["refuse", "skip"],
    workers: int,
    overwrite: bool,
) -> Manifest:
    """Pack what is missing, then read everything back; raises `DatasetError`, `Unreadable`, `PackError`."""
    listing = imagefolder.scan(source)
    facts, train, val = imagefolder.facts_of(source, listing), listing.train, listing.val
    shards = min(len(train.paths), shards or max(1, round(sum(train.sizes) / SHARD_BYTES)))
    of_val = min(len(val.paths), max(1, round(shards * len(val.paths) / len(train.paths))))
    parts = {"train": _parts("train", train, shards), "val": _parts("val", val, of_val)}
    planned = Manifest(
        format=FORMAT,
        complete=False,
        source=str(Path(source.root).resolve()),
        command=_command(source, shards=shards, on_unreadable=on_unreadable),
        fingerprint=facts.fingerprint,
        num_shards={"train": len(parts["train"]), "val": len(parts["val"])},
        on_unreadable=on_unreadable,
        class_names=facts.class_names,
        train=(),
        val=(),
    )
    out.mkdir(parents=True, exist_ok=True)
    with _exclusive(out):
        finished = {shard.file: shard for shard in _finished(out, planned, overwrite=overwrite)}
        remaining = [part for split in parts.values() for part in split if part.file not in finished]
        _check_space(out, remaining)
        counts = f"{facts.num_train} + {facts.num_val} images, {len(listing.classes)} classes"
        already = f", {len(finished)} already finished" if finished else ""
        say(f"mvit: packing {counts} into {sum(planned.num_shards.values())} shards in {out}{already}")

        def manifest(*, complete: bool) -> Manifest:
            made = {name: tuple(finished[p.file] for p in split if p.file in finished) for name, split in parts.items()}
            return planned.model_copy(update={"complete": complete, **made})

        def record(*, complete: bool) -> None:
            write_json(out / MANIFEST, manifest(complete=complete).model_dump(mode="json"))

        record(complete=False)
        try:
            with _threads(workers) as pool, _Bar("images", sum(len(part.paths) for part in remaining)) as bar:
                for part in remaining:
                    skip, root = on_unreadable == "skip", Path(source.root)
                    made = write(part, root=root, out=out, skip=skip, pool=pool, advance=bar.advance)
                    finished[part.file] = made
                    record(complete=False)
        finally:
            shutil.rmtree(out / PART, ignore_errors=True)
        _verify(out, manifest(complete=False), listing.classes, workers=workers)
        record(complete=True)
        done = manifest(complete=True)
        for path in (path for shard in done.shards for path in shard.skipped):
            say(f"  skipped (cannot be decoded): {path}")
        size = sum(shard.bytes for shard in done.shards) / 1e9
        count = sum(shard.count for shard in done.shards)
        say(f"mvit: {count} images in {len(done.shards)} shards, {size:.2f} GB; counts and sha256 verified")
        say(f"train on it with: {launch_command('data=mindrecord', f'data.root={out}')}")
        return done


def _command(source: Origin, *, shards: int, on_unreadable: str) -> str:
    options = ["--shards", str(shards), "--on-unreadable", on_unreadable]
    options += ["--train-folder", source.train_folder, "--val-folder", source.val_folder]
    if source.class_names:
        options += ["--class-names", str(Path(source.class_names).resolve())]
    return f"{MVIT} {shlex.join(['pack', *options, str(Path(source.root).resolve())])}"


def _parts(name: str, split: Split, shards: int) -> list[ShardPlan]:
    """Contiguous parts of a split, in listing order."""
    count = len(split.paths)
    ends = [count * number // shards for number in range(shards + 1)]
    return [
        ShardPlan(f"{name}-{number:05d}.mindrecord", split.paths[a:b], split.labels[a:b], split.sizes[a:b])
        for number, (a, b) in enumerate(pairwise(ends))
    ]


def _finished(out: Path, planned: Manifest, *, overwrite: bool) -> list[Shard]:
    """The shards that are already written; a directory with other content is cleared or refused."""
    try:
        old = read_manifest(out)
        damage = None
    except ManifestError as error:
        old, damage = None, error
    if old is None and damage is None:
        if foreign := [path.name for path in out.iterdir() if path.name not in (".lock", PART)]:
            rule = f"is not empty and has no {MANIFEST}: it contains {foreign[0]}"
            raise DatasetError(Problem("OUT", str(out), rule, "use an empty directory"))
        return []
    same = ("fingerprint", "num_shards", "on_unreadable", "class_names")
    differs = [name for name in same if old and getattr(old, name) != getattr(planned, name)]
    if old and not old.shards:  # stopped before its first shard: nothing to lose
        return []
    if old and not differs and not overwrite:
        return [shard for shard in old.shards if not any(size_fault(out, f) for f in (shard, shard.db, shard.index))]
    if not overwrite:
        rules = {
            "fingerprint": f"was packed from different images ({old.source})" if old else "",
            "num_shards": "was packed into a different number of shards",
            "on_unreadable": f"was packed with --on-unreadable {old.on_unreadable}" if old else "",
            "class_names": "was packed with different class names",
        }
        rule = rules[differs[0]] if differs else f"has a {MANIFEST} that {damage}"
        raise DatasetError(Problem("OUT", str(out), rule, "use another directory, or --overwrite"))
    (out / MANIFEST).unlink()
    for split in ("train", "val"):
        for path in (*out.glob(f"{split}-*.mindrecord"), *out.glob(f"{split}-*.mindrecord.db")):
            path.unlink()
        for path in out.glob(f"{split}-*.npy"):
            path.unlink()
    return []


def _check_space(out: Path, remaining: Sequence[ShardPlan]) -> None:
    needed, free = sum(part.disk_bytes for part in remaining), shutil.disk_usage(out).free
    if needed > free:
        raise PackError(f"{out}: not enough disk space: {needed / 1e9:.1f} GB needed, {free / 1e9:.1f} GB free")


def _verify(out: Path, manifest: Manifest, classes: Sequence[str], *, workers: int) -> None:
    """Read every file in full; raises `PackError` with what is wrong and how to repair it."""
    files = [file for shard in manifest.shards for file in (shard, shard.db, shard.index)]
    with _threads(workers) as pool, _Bar("verifying files", len(files)) as bar:
        for file, wrong in zip(files, pool.map(fault, repeat(out), files), strict=True):
            if wrong:
                (out / file.file).unlink(missing_ok=True)  # so that the same command writes that shard again
                raise PackError(f"{out / file.file} {wrong}; it was removed, run the same command to write it again")
            bar.advance(1)
    indexes = {shard.file: read_index(out, shard) for shard in manifest.shards}
    for shard in manifest.shards:
        if len(indexes[shard.file]) != shard.count:
            raise PackError(f"{out / shard.file} has {len(indexes[shard.file])} samples, expected {shard.count}")
    packed = {int(label) for shard in manifest.train for label in set(indexes[shard.file]["label"].tolist())}
    if empty := [name for label, name in enumerate(classes) if label not in packed]:
        raise PackError(f"no training image of {', '.join(empty[:3])} can be decoded; repair one, or remove the class")


@contextmanager
def _threads(workers: int) -> Generator[ThreadPoolExecutor]:
    """A thread pool that drops queued work on exit."""
    pool = ThreadPoolExecutor(workers)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


@contextmanager
def _exclusive(out: Path) -> Generator[None]:
    """Keep a second packer out; the lock is released when the process ends."""
    with (out / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise PackError(f"{out} is being packed by another process") from error
        yield


class _Bar:
    """A progress bar on a terminal, a line every ten seconds otherwise."""

    def __init__(self, label: str, total: int) -> None:
        self.label, self.total, self.done, self.reported_at = label, total, 0, time.monotonic()
        self.bar = Progress(console=console, transient=True, disable=not console.is_terminal)
        self.task = self.bar.add_task(label, total=total)

    def __enter__(self) -> _Bar:
        self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()

    def advance(self, count: int) -> None:
        self.done += count
        self.bar.update(self.task, completed=self.done)
        if self.bar.disable and time.monotonic() - self.reported_at > PLAIN_EVERY_S:
            self.reported_at = time.monotonic()
            say(f"  {self.label} {self.done}/{self.total}")


def _complain(code: int, message: object) -> int:
    print(f"mvit: {message}", file=sys.stderr)
    return code


def processors() -> int:
    """Number of CPUs that this process may use."""
    return len(os.sched_getaffinity(0))
