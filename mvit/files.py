"""Files: atomic writes, reads that cannot hang, digests, locks."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    pass
import hashlib
import json
import secrets
from contextlib import suppress
from typing import cast


@contextmanager
def lock(path: Path) -> Generator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


LARGEST_JSON = 64 << 20
"""Bytes of a file that is read as a whole; the confusion matrix of 1000 classes has 13 million."""


def write_json(path: Path, content: Any) -> None:
    """Write atomically: a reader sees the whole old file or the whole new one, also after a power cut."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    try:
        with temporary.open("x", encoding="utf-8") as file:
            json.dump(content, file, indent=1, allow_nan=False)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        fsync_dir(path.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def fsync_dir(folder: Path) -> None:
    """Make renames in the folder last."""
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def file_digest(path: Path) -> str:
    """sha256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def read_json(path: Path) -> Any:
    """What a file holds; raises `OSError`, and `ValueError` for one that is torn, nested too deep or too large."""
    with open(path, "rb", opener=nonblocking) as file:
        data = file.read(LARGEST_JSON + 1)
    if len(data) > LARGEST_JSON:
        raise ValueError(f"{path} has more than {LARGEST_JSON >> 20} MiB")
    try:
        return json.loads(data)
    except RecursionError as error:
        raise ValueError(f"{path} is nested too deep") from error


def read_mapping(path: Path) -> dict[str, Any] | None:
    """What the file says; None for one that is missing, torn or no mapping."""
    with suppress(OSError, ValueError):
        content = read_json(path)
        return cast(dict[str, Any], content) if isinstance(content, dict) else None
    return None


def nonblocking(path: str, flags: int) -> int:
    """Opens a pipe as an empty file, where a launcher would wait for ever for somebody who writes to it."""
    return os.open(path, flags | os.O_NONBLOCK)


def sealed(content: dict[str, Any]) -> dict[str, Any]:
    """With a hash over all of it, which `read_sealed` checks."""
    bare = {key: value for key, value in content.items() if key != "digest"}
    return {**bare, "digest": json_digest(bare)}


def read_sealed(path: Path) -> dict[str, Any]:
    """What `sealed` was written there; raises as `read_json`, and `ValueError` where a byte of it has changed."""
    content = read_json(path)
    if not isinstance(content, dict) or sealed(content := cast(dict[str, Any], content)) != content:
        raise ValueError(f"{path} is damaged: it is not what was written")
    return content


def json_digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
