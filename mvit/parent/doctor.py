"""What this machine has of all that a run may need, and the remedy for what it lacks. Nothing is changed."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path

from mvit.caches import cache_folders
from mvit.config import MlflowTracking
from mvit.credentials import redacted
from mvit.errors import ConfigError
from mvit.models.kernels.build import INSTALL
from mvit.parent.free_memory import free_memory, gib
from mvit.parent.host import Host, ascend_devices, free_port
from mvit.parent.nodes.address import master_address
from mvit.parent.tracking.store import database_of, store_uri
from mvit.places import CHECKOUT, CONSTRAINTS, PROJECT
from mvit.program import MVIT

PYTHONS = ((3, 10), (3, 12))
"""The oldest and the newest Python that mvit supports."""
ASKED = ("mindspore", "hydra-core", "omegaconf", "mlflow", "numpy", "pydantic", "scikit-learn")
"""Packages without which the default job cannot run."""
MEMORY_BYTES = 2 * 2**30
"""What the default job takes, with its launcher."""
DISK_BYTES = 2**30
SHARED_BYTES = 64 * 2**20
ANSWER_S = 5.0
WRONG_CLOCK_S = 2.0


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    what: str
    found: str
    remedy: str = ""
    """What to do about it; empty where nothing is missing."""
    is_fatal: bool = False
    """Whether the default job cannot run so."""

    @property
    def verdict(self) -> str:
        return "ok" if not self.remedy else "missing" if self.is_fatal else "note"


def examine(host: Host, *, runs: Path) -> list[Finding]:
    """Everything, in the order in which a run needs it; takes seconds where a server does not answer."""
    looks: Sequence[Callable[[], Iterator[Finding]]] = (
        _python,
        _packages,
        lambda: _processors(host),
        _memory,
        lambda: _disks(runs),
        lambda: _kernels(host),
        _msrun,
        _ports,
        _store,
        lambda: _clock(runs),
        _cards,
        _slurm,
    )
    return [finding for look in looks for finding in look()]


def _python() -> Iterator[Finding]:
    (oldest, newest), version = PYTHONS, sys.version_info[:2]
    how = ": make env PYTHON=python3.11" if CHECKOUT else ""
    remedy = "" if oldest <= version <= newest else f"use Python 3.10, 3.11 or 3.12{how}"
    yield Finding("Python", f"{platform.python_version()}, {sys.executable}", remedy, is_fatal=True)


def _packages() -> Iterator[Finding]:
    pins = list(_pins(CONSTRAINTS))
    for package in ASKED:
        try:
            version = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            yield Finding(package, "is not installed", _install(package), is_fatal=True)
            continue
        tested = [pinned for name, pinned in pins if name == package]  # several, where an older Python needs another
        is_other = tested and version not in tested
        how = _install(f"{package}=={tested[-1]}") if is_other else ""
        yield Finding(package, version, f"mvit is tested with {' and '.join(tested)}; {how}" if is_other else "")


def _install(requirement: str) -> str:
    """What to do about a package."""
    return "run: make env" if CHECKOUT else f"run: {shlex.join((sys.executable, '-m', 'pip', 'install', requirement))}"


def _pins(file: Path) -> Iterator[tuple[str, str]]:
    with suppress(OSError):
        for line in file.read_text(encoding="utf-8").splitlines():
            name, pin, version = line.partition("==")
            if pin:
                yield name.strip(), version.partition(";")[0].strip()


def _processors(host: Host) -> Iterator[Finding]:
    found = f"{host.cpu_count} of {os.cpu_count()}"
    quota = _quota()
    if quota is not None and quota < host.cpu_count:
        remedy = f"a control group allows {quota:g}: use topology.threads={max(1, int(quota))}, or threads wait"
        yield Finding("processors", found, remedy)
    else:
        yield Finding("processors", found)


def _quota() -> float | None:
    """The processors that a control group (version 2) allows; None without a limit."""
    with suppress(OSError, ValueError):
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return int(quota) / int(period)
    return None


def _memory() -> Iterator[Finding]:
    free = free_memory()
    remedy = "" if free.bytes >= MEMORY_BYTES else f"the default job takes {gib(MEMORY_BYTES)}: end other programs"
    yield Finding("memory", f"{gib(free.bytes)} free{free.where}", remedy, is_fatal=True)
    with suppress(OSError):
        shared = shutil.disk_usage("/dev/shm").free
        remedy = "" if shared >= SHARED_BYTES else "several workers need more: docker run --shm-size=1g"
        yield Finding("shared memory", f"{gib(shared)} free", remedy)


def _disks(runs: Path) -> Iterator[Finding]:
    yield _disk("run folders", runs, is_fatal=True)
    cache = next(iter(cache_folders("graphs")), None)
    if cache:
        yield _disk("cache", cache.parent, is_fatal=False)


def _disk(what: str, folder: Path, *, is_fatal: bool) -> Finding:
    there = next(path for path in (folder, *folder.parents) if path.exists())
    if not os.access(there, os.W_OK):
        remedy = "use runs_dir=..." if is_fatal else "set XDG_CACHE_HOME, or graphs and kernels are made each time"
        return Finding(what, f"{folder} cannot be written", remedy, is_fatal)
    free = shutil.disk_usage(there).free
    return Finding(what, f"{gib(free)} free in {folder}", "" if free >= DISK_BYTES else "make room", is_fatal)


def _kernels(host: Host) -> Iterator[Finding]:
    if host.kernels.isa:
        yield Finding("fused kernels", f"for {host.kernels.isa}")
    else:
        yield Finding(
            "fused kernels", f"none: {host.kernels.reason}", f"{INSTALL}, or training is several times slower"
        )


def _msrun() -> Iterator[Finding]:
    beside = Path(sys.executable).with_name("msrun")
    found = str(beside) if beside.exists() else shutil.which("msrun")
    yield Finding("msrun", found or "not found", "" if found else f"several workers need it; {_install('mindspore')}")


def _ports() -> Iterator[Finding]:
    try:
        yield Finding("a free port", str(free_port()))
    except RuntimeError as error:
        yield Finding("a free port", str(error), "several workers need one; set MVIT_MASTER_PORT")
    try:
        yield Finding("address for others", master_address())
    except ConfigError as error:
        yield Finding("address for others", "none", f"for several machines, {error.problems[0].remedy}")


def _store() -> Iterator[Finding]:
    uri = store_uri(MlflowTracking(kind="mlflow", uri=None, experiment="mvit"), PROJECT)
    shown = redacted(uri)
    database = database_of(uri)
    if database is not None:
        folder = next(path for path in (database, *database.parents) if path.exists())
        remedy = "" if os.access(folder, os.W_OK) else "set MLFLOW_TRACKING_URI, or use tracking=none"
        yield Finding("MLflow", shown if database.exists() else f"{shown}, which the first run makes", remedy)
    elif uri.startswith(("http://", "https://")):
        yield Finding("MLflow", *_answer_of(uri))
    else:
        yield Finding("MLflow", shown)


def _answer_of(uri: str) -> tuple[str, str]:
    """What a tracking server answers, and what to do about it."""
    shown, remedy = redacted(uri), f"runs keep what they would send; send it later with: {MVIT} sync"
    try:
        with urllib.request.urlopen(f"{redacted(uri).rstrip('/')}/health", timeout=ANSWER_S):
            return shown, ""
    except urllib.error.HTTPError as error:
        if error.code in (401, 403):  # it is there, and asks who is asking
            return shown, ""
        return f"{shown} answers {error.code}", remedy
    except (OSError, ValueError, HTTPException) as error:  # also what is no address, or does not speak HTTP
        return f"{shown} does not answer ({getattr(error, 'reason', error)})", remedy


def _clock(runs: Path) -> Iterator[Finding]:
    """Of the file system that holds the runs, which may be another machine's."""
    there = next(path for path in (runs, *runs.parents) if path.exists())
    with suppress(OSError):
        now = time.time()
        with tempfile.NamedTemporaryFile(dir=there, prefix=".mvit-") as file:
            ahead = os.fstat(file.fileno()).st_mtime - now
        remedy = "" if abs(ahead) <= WRONG_CLOCK_S else "set the clocks by NTP: times in folders mislead people"
        yield Finding("clock", f"{abs(ahead):.1f} s from that of the run folders", remedy)


def _cards() -> Iterator[Finding]:
    if not (cards := ascend_devices()):
        yield Finding("Ascend cards", "none: topology=cpu runs, and dry_run=true plans the others")
        return
    yield Finding("Ascend cards", f"{len(cards)}: {', '.join(cards)}")
    told = _first_line("npu-smi", "info", holding="Version")
    yield Finding("Ascend driver", told or "npu-smi does not answer", "" if told else "install the driver's tools")
    toolkit = os.environ.get("ASCEND_TOOLKIT_HOME") or os.environ.get("ASCEND_HOME_PATH")
    remedy = "" if toolkit else "source set_env.sh of the Ascend toolkit first"
    yield Finding("CANN", toolkit or "not in the environment", remedy)


def _slurm() -> Iterator[Finding]:
    told = _first_line("sbatch", "--version", holding="slurm")
    yield Finding("Slurm", told or "none: launch=slurm needs its commands")


def _first_line(*command: str, holding: str) -> str | None:
    """The first line of a program's output that holds a word; None where it does not answer so."""
    with suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=ANSWER_S, check=True
        )
        return next((line.strip(" |") for line in done.stdout.splitlines() if holding in line), None)
    return None
