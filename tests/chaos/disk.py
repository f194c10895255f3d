"""A small file system that can be filled."""

import os
import subprocess
from contextlib import suppress

import pytest


class Disk:
    """A file system of its own, small enough to be filled."""

    def __init__(self, path, megabytes):
        self.path, self.ballast = path, path / "ballast"
        path.mkdir()
        mount("-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(path))

    def fill(self, *, but_kb=0):
        """Leave so much room and no more."""
        with self.ballast.open("ab", buffering=0) as file, suppress(OSError):
            while True:
                file.write(b"x" * 4096)
        os.truncate(self.ballast, self.ballast.stat().st_size - 1024 * but_kb)

    def free(self):
        self.ballast.unlink()


def mount(*arguments):
    done = subprocess.run(["mount", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0 or os.geteuid() != 0, done.stderr
    if done.returncode != 0:
        pytest.skip(f"needs the right to mount: {done.stderr.strip()}; try: unshare -Urm make chaos")


def unmount(path):
    subprocess.run(["umount", "-l", str(path)], check=True)
