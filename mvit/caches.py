"""Caches: folders for what is made once on a machine and can be made again."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path


def cache_folders(kind: str) -> Iterator[Path]:
    """Where things of a kind are kept: the user's cache, or else a folder of this user below the temporary one.

    The first one need not exist, and neither need be writable.
    """
    with suppress(RuntimeError):  # no home
        base = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
        if base.is_absolute():
            yield base / "mvit" / kind
    with suppress(OSError):  # also where there is no temporary folder that can be written
        private = Path(tempfile.gettempdir()) / f"mvit-{kind}-{os.getuid()}"
        private.mkdir(mode=0o700, exist_ok=True)
        facts = private.lstat()
        # Code is loaded from there: nobody else may have made it.
        if private.is_dir() and not private.is_symlink() and facts.st_uid == os.getuid() and not facts.st_mode & 0o022:
            yield private
