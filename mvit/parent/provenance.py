"""What made a run: code, versions, host, devices, data, command."""

from __future__ import annotations

import getpass
import importlib.metadata
import json
import os
import platform
import shlex
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from mvit import __version__
from mvit.credentials import hidden, without_environment
from mvit.parent.host import ascend_devices

PACKAGES = ("mindspore", "hydra-core", "omegaconf", "mlflow", "numpy", "pydantic", "scikit-learn")
PATCH_LIMIT = 5_000_000
"""Bytes of the uncommitted patch that are kept."""
GIT_TIMEOUT_S = 5.0
NPU_SMI_TIMEOUT_S = 10.0
NPU_SMI_LIMIT = 20_000
"""Characters of its answer that are kept."""
HOOK_VARIABLES = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR", "GIT_OBJECT_DIRECTORY")
EMPTY_TREE = "4b825dc642cb6eb9a060e54bf8d69288fbee4904"
"""What a repository without a commit is compared with."""

NO_GIT: Mapping[str, Any] = dict.fromkeys(
    ("commit", "branch", "dirty", "num_changed", "num_untracked", "untracked", "patch_cut", "git_problem")
)
"""The fields that git fills."""


def collect(checkout: Path | None, *, argv: list[str], dataset_fingerprint: str) -> tuple[dict[str, Any], str]:
    """Content of provenance.json, and the uncommitted changes as a patch, empty where there are none.

    Without git or a repository the fields of git are null, and `git_problem` says why. Without a checkout, the commit
    is the one that pip installed, if it knows. The environment is never written, and where its secrets stand in the
    command or the patch, *** stands for them.
    """
    git, patch = _git(checkout) if checkout else (_installed(), "")
    cards = ascend_devices()
    content = {
        "mvit": __version__,
        **git,
        "python": platform.python_version(),
        "executable": sys.executable,
        "versions": {package: _version(package) for package in PACKAGES},
        "platform": platform.platform(),
        "host": socket.gethostname(),
        "user": user(),
        "cpu": _cpu(),
        "processors": os.cpu_count(),
        "processors_usable": len(os.sched_getaffinity(0)),
        "memory_mb": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20,
        "ascend_devices": cards,
        "npu_smi": _npu_smi() if cards else None,
        "command": shlex.join(hidden(argument) for argument in argv),
        "dataset_fingerprint": dataset_fingerprint,
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }
    return content, without_environment(patch)


def code_of(made_of: Mapping[str, Any]) -> str:
    """The commit of what made a run, in ten digits, else the version of mvit."""
    if commit := made_of.get("commit"):
        return str(commit)[:10]
    return f"mvit {made_of['mvit']}" if made_of.get("mvit") else "unknown"


def _npu_smi() -> str | None:
    """Driver, firmware and state of the cards, as their own tool tells them; None where it does not."""
    with suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(
            ("npu-smi", "info"), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=NPU_SMI_TIMEOUT_S
        )
        return done.stdout[:NPU_SMI_LIMIT] if done.returncode == 0 else None
    return None


def user() -> str:
    """Name of who runs this, or the number where a container knows no name."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())


def _installed() -> dict[str, Any]:
    """The fields of git of an installed package: pip records the commit of `pip install git+https://...` (PEP 610)."""
    with suppress(importlib.metadata.PackageNotFoundError, ValueError, KeyError, TypeError):
        origin = json.loads(importlib.metadata.distribution("mvit").read_text("direct_url.json") or "{}")
        commit = str(origin["vcs_info"]["commit_id"])
        return {**NO_GIT, "commit": commit, "dirty": False, "num_changed": 0, "num_untracked": 0, "untracked": []}
    return {**NO_GIT, "git_problem": f"mvit {__version__} was not installed from a repository"}


def _git(checkout: Path) -> tuple[dict[str, Any], str]:
    fields = dict(NO_GIT)
    try:
        status = _run_git(checkout, "status", "--porcelain=v2", "--branch", "-z").split("\0")
        heads = dict(line[2:].split(" ", 1) for line in status if line.startswith("# "))
        changed = sum(line[:2] in ("1 ", "2 ", "u ") for line in status)
        untracked = [line[2:] for line in status if line.startswith("? ")]
        commit = heads["branch.oid"] if heads["branch.oid"] != "(initial)" else None
        branch = heads["branch.head"] if heads["branch.head"] != "(detached)" else None
        fields.update(commit=commit, branch=branch, dirty=bool(changed or untracked))
        fields.update(num_changed=changed, num_untracked=len(untracked), untracked=untracked[:100], patch_cut=False)
        patch, cut = _patch(checkout, commit or EMPTY_TREE) if changed else ("", False)
    except (OSError, subprocess.SubprocessError, KeyError, ValueError) as error:
        return {**fields, "git_problem": _why(error)}, ""
    if cut:
        fields["patch_cut"] = True
        patch += f"\nmvit: cut at {PATCH_LIMIT / 1e6:g} MB; this patch does not apply\n"
    return fields, patch


def _patch(checkout: Path, base: str) -> tuple[str, bool]:
    """Changes of tracked files, bytes that are no UTF-8 as surrogates; and whether they were too many, or too slow."""
    plain = ("--no-color", "--no-ext-diff", "--no-textconv", "--src-prefix=a/", "--dst-prefix=b/")
    slow = False
    with tempfile.TemporaryFile() as file:
        try:
            _run_git(checkout, "diff", "--binary", *plain, base, "--", stdout=file.fileno())
        except subprocess.TimeoutExpired:
            slow = True
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
        return file.read(PATCH_LIMIT).decode("utf-8", "surrogateescape"), slow or size > PATCH_LIMIT


def _run_git(checkout: Path, *arguments: str, stdout: int = subprocess.PIPE) -> str:
    # Neither the repository that git names to its hooks, nor one that the checkout merely lies in.
    environment = {name: value for name, value in os.environ.items() if name not in HOOK_VARIABLES}
    environment |= {"GIT_CEILING_DIRECTORIES": str(checkout.resolve().parent), "GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C"}
    done = subprocess.run(
        ("git", *arguments),
        cwd=checkout,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=subprocess.PIPE,
        timeout=GIT_TIMEOUT_S,
        check=True,
    )
    return (done.stdout or b"").decode("utf-8", "surrogateescape")


def _why(error: Exception) -> str:
    match error:
        case FileNotFoundError():
            return "git is not installed"
        case subprocess.TimeoutExpired():
            return f"git did not answer within {GIT_TIMEOUT_S:g} s"
        case subprocess.CalledProcessError():
            lines = bytes(error.stderr or b"").decode("utf-8", "replace").strip().splitlines() or [str(error)]
            return lines[0].removeprefix("fatal: ")[:300]
        case _:
            return f"{type(error).__name__}: {error}"[:300]


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _cpu() -> str:
    with suppress(OSError):
        model = _field(Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines(), "model name")
        if model:
            return model
    return platform.processor() or platform.machine()


def _field(lines: Sequence[str], name: str) -> str | None:
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(name)), None)
