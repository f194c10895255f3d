"""What made a run: commit and uncommitted changes, versions, host, devices, data, command."""

from __future__ import annotations

import getpass
import os
import platform
import re
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = ("mindspore", "hydra-core", "omegaconf", "mlflow", "numpy", "pydantic", "scikit-learn")
MAX_PATCH = 5_000_000


def collect(checkout: Path, *, argv: Sequence[str], dataset_fingerprint: str) -> tuple[dict[str, Any], str]:
    """Content of provenance.json, and the patch against HEAD, empty for a clean checkout.

    Nothing of the environment is recorded, and passwords in URLs are left out.
    """
    patch = _git(checkout, "diff", "HEAD", "--binary") or ""
    untracked = (_git(checkout, "ls-files", "--others", "--exclude-standard") or "").splitlines()
    if len(patch) > MAX_PATCH:
        patch = patch[:MAX_PATCH] + f"\n# cut: the whole patch has {len(patch)} characters\n"
    content = {
        "commit": _git(checkout, "rev-parse", "HEAD"),
        "branch": _git(checkout, "rev-parse", "--abbrev-ref", "HEAD"),
        "dirty": bool(patch or untracked),
        "untracked": untracked[:100],
        "command": _without_passwords(shlex.join(argv)),
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "host": socket.gethostname(),
        "user": _user(),
        "versions": {package: _version(package) for package in PACKAGES},
        "cpu": _cpu(),
        "processors": len(os.sched_getaffinity(0)),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "ascend_cards": sorted(path.name for path in Path("/dev").glob("davinci[0-9]*")),
        "executable": sys.executable,
        "dataset_fingerprint": dataset_fingerprint,
    }
    return content, patch


def _git(checkout: Path, *arguments: str) -> str | None:
    """What git prints; None without git, without a repository, or after five seconds."""
    command = ["git", "-C", str(checkout), *arguments]
    with suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(command, capture_output=True, timeout=5, check=True)
        text = done.stdout.decode("utf-8", "surrogateescape")
        return text if arguments[0] == "diff" else text.strip()
    return None


def _without_passwords(text: str) -> str:
    return re.sub(r"(?<=://)[^/@\s]*@", "", text)


def _version(package: str) -> str | None:
    with suppress(PackageNotFoundError):
        return version(package)
    return None


def _user() -> str | None:
    with suppress(OSError, KeyError):
        return getpass.getuser()
    return None


def _cpu() -> str | None:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return None
