"""Files: atomic writes, reads that cannot hang, digests, locks; one of each."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, cast

LARGEST_JSON = 64 << 20
"""Largest file that is read as a whole, in bytes; the confusion matrix of 1000 classes takes 13 million."""


def write_bytes(path: Path, data: bytes) -> None:
    """Write atomically: a reader sees the whole old file or the whole new one, also after a power cut."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    try:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        fsync_dir(path.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextmanager
def whole_folder(path: Path) -> Generator[Path]:
    """A new folder to fill, which becomes `path` at the end, or is removed: a reader sees all of it or nothing.

    `path` must not exist by then. Raises `OSError`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    room = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    room.mkdir()
    try:
        yield room
        room.rename(path)
    except BaseException:
        shutil.rmtree(room, ignore_errors=True)
        raise


def write_json(path: Path, content: Any) -> None:
    """`write_bytes` of a JSON document; raises `ValueError` for NaN and infinity."""
    write_bytes(path, json.dumps(content, indent=1, allow_nan=False).encode() + b"\n")


def append_lines(path: Path, lines: bytes) -> None:
    """Append whole lines, in one write that reaches the disk, or none of them; raises `OSError`.

    What was torn before keeps a line of its own.
    """
    with path.open("ab+", buffering=0) as file:
        if (end := file.seek(0, os.SEEK_END)) and os.pread(file.fileno(), 1, end - 1) != b"\n":
            lines = b"\n" + lines
        try:
            if file.write(lines) < len(lines):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(file.fileno())
        except OSError:
            with suppress(OSError):
                file.truncate(end)
            raise


def fsync_dir(path: Path) -> None:
    """Make renames in the directory durable."""
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def read_json_bytes(path: Path) -> bytes:
    """Content of a file of a sensible size; raises `OSError`, and `ValueError` for one that is too large.

    A pipe reads as an empty file, where the launcher would otherwise wait for ever for a writer.
    """
    with open(path, "rb", opener=nonblocking) as file:
        data = file.read(LARGEST_JSON + 1)
    if len(data) > LARGEST_JSON:
        raise ValueError(f"{path} is larger than {LARGEST_JSON >> 20} MiB")
    return data


def read_json(path: Path) -> Any:
    """A JSON document; raises `OSError`, and `ValueError` for one that is torn, nested too deeply or too large."""
    try:
        return json.loads(read_json_bytes(path))
    except RecursionError as error:
        raise ValueError(f"{path} is nested too deeply") from error


def read_mapping(path: Path) -> dict[str, Any] | None:
    """A JSON object; None where the file is missing, torn or something else."""
    with suppress(OSError, ValueError):
        content = read_json(path)
        return cast(dict[str, Any], content) if isinstance(content, dict) else None
    return None


def nonblocking(path: str, flags: int) -> int:
    """An opener for `open` that does not wait for the other end of a pipe."""
    return os.open(path, flags | os.O_NONBLOCK)


def file_digest(path: Path) -> str:
    """sha256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def as_utf8(name: str) -> str:
    """The name of a file as text that UTF-8 can hold; of a name that is not UTF-8, such bytes become `\\xe9`."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def json_digest(content: Any) -> str:
    """sha256 of a JSON document, in hexadecimal, independent of the order of its keys."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def sealed(content: dict[str, Any]) -> dict[str, Any]:
    """The content with a digest of all of it, which `read_sealed` verifies."""
    bare = {key: value for key, value in content.items() if key != "digest"}
    return {**bare, "digest": json_digest(bare)}


def read_sealed(path: Path) -> dict[str, Any]:
    """What `sealed` returned and `write_json` wrote; raises as `read_json`, and `ValueError` where a byte differs."""
    content = read_json(path)
    if not isinstance(content, dict) or sealed(content := cast(dict[str, Any], content)) != content:
        raise ValueError(f"{path} is damaged: its digest does not match")
    return content


@contextmanager
def lock(path: Path, *, wait: bool = True, create: bool = False) -> Generator[bool]:
    """Hold the lock of a file, which `create` makes if it is missing, or of a directory; False if it is held elsewhere.

    With `wait`, waits until it is free. The lock ends with its holder, however that ends. On a file system without
    locks everybody holds it.
    """
    if create:
        path.parent.mkdir(parents=True, exist_ok=True)
    number = os.open(path, os.O_RDWR | os.O_CREAT if create else os.O_RDONLY, 0o666)
    try:
        try:
            fcntl.flock(number, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            held = True
        except BlockingIOError:
            held = False
        except OSError:
            held = True
        yield held
    finally:
        os.close(number)
