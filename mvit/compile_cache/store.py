"""The store of compiled graphs: a folder per key, verified file by file, bounded in size.

<key>/entry.json                        what the entry is, and a digest of each of its files
<key>/rank_<r>/graph_cache/             the files as MindSpore wrote them
.work-<host>-<pid>-<start>-<random>/    where a worker's MindSpore reads and writes; it never sees an entry itself
locks/<key>                             held by the process that compiles

An entry appears whole, by a rename. It is copied before it is used, and the copy is verified.
"""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from mvit.caches import cache_folders
from mvit.config import Frozen
from mvit.files import file_digest, read_sealed, sealed, write_json
from mvit.process import process_start

STORE_VARIABLE = "MVIT_GRAPHS"
"""The environment variable by which a launcher tells its workers where the store is."""
LIMIT_BYTES = 1 << 30
"""Size beyond which the entries that were used least recently are removed."""
SPARE_BYTES = 64 << 20
"""Free space below which nothing is stored."""
LEFT_BEHIND_S = 24 * 3600.0
"""Age at which the work of another machine's process is taken for left behind."""
ENTRY = "entry.json"
KEY_LENGTH = 64


class Entry(Frozen):
    """The compiled graphs of one key."""

    title: str
    """Model, shapes and form, for a person."""
    created: float
    """Unix time, seconds."""
    seconds: dict[str, float]
    """How long each graph took to compile."""
    check: str
    """Digest of what the graphs computed from known weights and images, right after they were compiled."""
    files: dict[str, str]
    """sha256 of each file, by its path in the entry."""
    bytes: int


@dataclass(frozen=True)
class Stored:
    """An entry, and when it was used last."""

    key: str
    entry: Entry
    used: float


class Store:
    """Compiled graphs below one folder; any number of processes may use it at once."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def entries(self) -> list[Stored]:
        """Every whole entry, the one used last first."""
        found: list[Stored] = []
        for path in self.root.glob(f"*/{ENTRY}"):
            with suppress(OSError, ValueError):
                found.append(Stored(path.parent.name, _read(path), path.stat().st_mtime))
        return sorted(found, key=lambda stored: stored.used, reverse=True)

    def entry(self, key: str) -> Entry | None:
        """What is stored under a key, not yet verified."""
        with suppress(OSError, ValueError):
            return _read(self.root / key / ENTRY)
        return None

    @contextmanager
    def workspace(self) -> Generator[Path]:
        """A folder of this process alone, removed at the end; raises `OSError` where there is no room for one."""
        self.root.mkdir(parents=True, exist_ok=True)
        self._sweep()
        if shutil.disk_usage(self.root).free < SPARE_BYTES:
            raise OSError(f"less than {SPARE_BYTES >> 20} MiB free")
        owner = f"{socket.gethostname()}-{os.getpid()}-{process_start(os.getpid())}"
        work = Path(tempfile.mkdtemp(dir=self.root, prefix=f".work-{owner}-"))
        try:
            yield work
        finally:
            shutil.rmtree(work, ignore_errors=True)

    def lock_file(self, key: str) -> Path:
        """What the process holds that compiles the graphs of a key."""
        return self.root / "locks" / key

    def fetch(self, key: str, work: Path) -> Entry | None:
        """Copy an entry into a workspace; None if there is none, or it was not whole and is gone now."""
        entry = self.entry(key)
        if entry is None:
            if (self.root / key).exists():
                self.discard(key)
            return None
        try:
            for name, digest in entry.files.items():
                (work / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(self.root / key / name, work / name)
                if file_digest(work / name) != digest:
                    raise ValueError(f"{name} is damaged")
            os.utime(self.root / key / ENTRY)
        except (OSError, ValueError):
            _empty(work)
            self.discard(key)
            return None
        return entry

    def put(self, key: str, work: Path, *, title: str, seconds: dict[str, float], check: str) -> None:
        """Make an entry of what a workspace holds, in place of an older one; raises `OSError`."""
        paths = [path for path in sorted(work.rglob("*")) if path.is_file()]
        entry = Entry(
            title=title,
            created=time.time(),
            seconds=seconds,
            check=check,
            files={str(path.relative_to(work)): file_digest(path) for path in paths},
            bytes=sum(path.stat().st_size for path in paths),
        )
        write_json(work / ENTRY, sealed(entry.model_dump(mode="json")))
        self.discard(key)
        with suppress(OSError):  # another process was first
            work.rename(self.root / key)
        self.trim()

    def discard(self, key: str) -> None:
        """Remove an entry; a process that copies it meanwhile finds that it is not whole."""
        with suppress(OSError):
            away = Path(tempfile.mkdtemp(dir=self.root, prefix=f".work-{socket.gethostname()}-0-0-"))
            with suppress(FileNotFoundError):
                (self.root / key).rename(away / key)
            shutil.rmtree(away, ignore_errors=True)

    def trim(self, limit_bytes: int = LIMIT_BYTES) -> None:
        """Remove the entries used least recently until the rest fits, and those that cannot be read."""
        for path in self._folders():
            if self.entry(path.name) is None:
                self.discard(path.name)
        total = 0
        for stored in self.entries():
            total += stored.entry.bytes
            if total > limit_bytes:
                self.discard(stored.key)

    def clear(self) -> int:
        """Remove every entry; returns the bytes that they took. Processes that compile go on."""
        entries = self.entries()
        for path in self._folders():
            self.discard(path.name)
        shutil.rmtree(self.root / "locks", ignore_errors=True)
        self._sweep()
        return sum(stored.entry.bytes for stored in entries)

    def _folders(self) -> Iterator[Path]:
        """Those of all entries, of another version too."""
        return (path for path in self.root.glob("[0-9a-f]*") if len(path.name) == KEY_LENGTH)

    def _sweep(self) -> None:
        """Remove what killed processes left."""
        for path in self.root.glob(".work-*"):
            if _is_left_behind(path):
                shutil.rmtree(path, ignore_errors=True)


def store_folders() -> Iterator[Path]:
    """Where compiled graphs may be kept, the first choice first."""
    return cache_folders("graphs")


def _read(path: Path) -> Entry:
    """Raises `OSError` and `ValueError`."""
    return Entry.model_validate({name: value for name, value in read_sealed(path).items() if name != "digest"})


def _is_left_behind(work: Path) -> bool:
    with suppress(OSError, ValueError):
        host, pid, start, _ = work.name.removeprefix(".work-").rsplit("-", 3)
        if host == socket.gethostname():
            return str(process_start(int(pid))) != start
        return time.time() - work.stat().st_mtime > LEFT_BEHIND_S
    return False


def _empty(folder: Path) -> None:
    for path in folder.iterdir():
        shutil.rmtree(path, ignore_errors=True)
