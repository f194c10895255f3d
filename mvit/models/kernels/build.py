"""The kernels' shared library: compiled from `native/` for this CPU, and kept in a cache.

Imports nothing heavy: the launcher builds it, before workers that would race for it exist.
"""

from __future__ import annotations

import errno
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

from mvit.caches import cache_folders
from mvit.files import file_digest, lock, write_bytes

NATIVE = Path(__file__).parent / "native"

Isa = Literal["avx512", "avx2", "neon"]
"""What vectors a library is made of; results depend on it."""

Activations = Literal["fp32", "bf16"]
"""As what a library keeps feature maps for the backward pass; results depend on it too."""

# Extension by extension: compilers know the levels x86-64-v3 and -v4 only since g++ 11.
_AVX2 = ("-mavx2", "-mfma", "-mbmi", "-mbmi2", "-mf16c", "-mlzcnt", "-mmovbe")
_AVX512 = (*_AVX2, "-mavx512f", "-mavx512bw", "-mavx512cd", "-mavx512dq", "-mavx512vl", "-mprefer-vector-width=512")
FLAGS: dict[Isa, tuple[str, ...]] = {"avx512": _AVX512, "avx2": _AVX2, "neon": ("-march=armv8-a",)}
KEPT: dict[Activations, tuple[str, ...]] = {"fp32": (), "bf16": ("-DMVIT_BF16",)}
COMMON_FLAGS = ("-O3", "-std=c++17", "-fPIC", "-fopenmp", "-fno-math-errno", "-pipe", "-w")

# What Linux calls the extensions that x86-64-v3 and -v4 stand for (System V ABI, x86-64 supplement, table 3.1).
AVX2_FLAGS = frozenset({"avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "abm", "movbe", "xsave"})
AVX512_FLAGS = AVX2_FLAGS | {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}

BUILD_S = 300.0
KERNELS_VARIABLE = "MVIT_KERNELS"
"""The environment variable by which a launcher tells its workers which library to load."""
INSTALL = "install g++ 9 or later (Debian: apt install g++)"


class KernelsUnavailable(Exception):
    """Why there is no library, in one line."""


@dataclass(frozen=True)
class Support:
    """The fused kernels as far as this machine has them: an instruction set, or the reason why there is none."""

    isa: Isa | None
    reason: str = ""


def isas_of(flags: frozenset[str], machine: str) -> tuple[Isa, ...]:
    """The instruction sets of a CPU with these flags of /proc/cpuinfo, widest first."""
    if machine in ("aarch64", "arm64"):
        return ("neon",)
    if machine != "x86_64" or not flags >= AVX2_FLAGS:
        return ()
    return ("avx512", "avx2") if flags >= AVX512_FLAGS else ("avx2",)


@cache
def this_cpu() -> tuple[Isa, ...]:
    """The instruction sets of this CPU, widest first."""
    return isas_of(_cpu_flags(), platform.machine())


def support() -> Support:
    """What a launch on this machine can use; nothing is built yet."""
    isas = this_cpu()
    if isas:
        return Support(isas[0])
    return Support(None, f"this CPU ({platform.machine()}) has neither AVX2 nor NEON")


def library(isa: Isa, activations: Activations = "fp32", *, before_build: Callable[[], None] = lambda: None) -> Path:
    """The library for an instruction set: the cached one, or a new one, which takes about 10 s.

    Raises `KernelsUnavailable` without a compiler, or where it cannot be stored. Of processes that ask at once, one
    builds and the others wait.
    """
    if isa not in this_cpu():
        raise KernelsUnavailable(f"this CPU has no {isa}")
    flags = (*COMMON_FLAGS, *FLAGS[isa], *KEPT[activations])
    compiler = _compiler()
    name = _name(isa, flags, _version(compiler) if compiler else "*")
    refused = ""
    for folder in cache_folders("kernels"):
        try:
            if compiler is None:
                if whole := [path for path in sorted(folder.glob(name)) if _is_whole(path)]:
                    return whole[0]
                continue
            path = folder / name
            if not _is_whole(path):
                with lock(folder / "lock", create=True):
                    if not _is_whole(path):
                        before_build()
                        _build(path, flags, compiler)
            return path
        except OSError as error:
            refused = f"no library in {folder}: {error.strerror or error}"
    raise KernelsUnavailable(refused or f"no C++ compiler: {INSTALL}")


def _cpu_flags() -> frozenset[str]:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith(("flags", "Features")):
                return frozenset(line.partition(":")[2].split())
    return frozenset()


def _compiler() -> str | None:
    """The C++ compiler: CXX, or the first usual one on PATH; raises `KernelsUnavailable` where CXX is none."""
    if wanted := os.environ.get("CXX"):
        if path := shutil.which(wanted):
            return path
        raise KernelsUnavailable(f"CXX={wanted} is not a program")
    return next(filter(None, map(shutil.which, ("g++", "c++", "clang++"))), None)


def _sources() -> Iterator[Path]:
    yield from sorted([*NATIVE.glob("*.h"), *NATIVE.glob("*.cc")])


def _name(isa: Isa, flags: Sequence[str], compiler: str) -> str:
    """The library's file: named by all that decides about its code."""
    digest = hashlib.sha256("\0".join(flags).encode())
    for source in _sources():
        digest.update(f"\0{source.name}\0".encode() + source.read_bytes())
    return f"libmvit-{isa}-{digest.hexdigest()[:12]}-{compiler}.so"


@cache
def _version(compiler: str) -> str:
    """Digest of what the compiler says it is."""
    return hashlib.sha256(_run([compiler, "--version"]).encode()).hexdigest()[:8]


def _is_whole(path: Path) -> bool:
    """Whether the library is the one that was built, to the byte."""
    with suppress(OSError, ValueError):
        return _seal(path).read_text() == file_digest(path)
    return False


def _seal(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")


def _build(path: Path, flags: Sequence[str], compiler: str) -> None:
    """Compile the sources side by side, link, and put the library in its place; the caller holds the lock."""
    for stale in path.parent.glob(".build-*"):  # of a process that was killed
        shutil.rmtree(stale, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".build-") as folder:
        sources = [source for source in _sources() if source.suffix == ".cc"]
        sources.sort(key=lambda source: -source.stat().st_size)  # the longest first, so that none is left at the end
        objects = [Path(folder) / f"{source.stem}.o" for source in sources]
        commands = [[compiler, *flags, "-c", str(s), "-o", str(o)] for s, o in zip(sources, objects, strict=True)]
        with ThreadPoolExecutor(max(1, len(os.sched_getaffinity(0)))) as pool:
            list(pool.map(_run, commands))
        linked = Path(folder) / path.name
        _run([compiler, "-shared", "-fopenmp", *map(str, objects), "-o", str(linked)])
        if not linked.exists():
            raise KernelsUnavailable(f"{compiler} made no library")
        digest = file_digest(linked)
        _seal(path).unlink(missing_ok=True)
        linked.replace(path)
    try:
        _run([sys.executable, "-c", "import ctypes, sys; ctypes.CDLL(sys.argv[1])", str(path)])
    except KernelsUnavailable as error:  # the folder is mounted noexec, or a library that it needs is missing
        raise OSError(errno.ENOEXEC, f"what was built cannot be loaded ({error})") from error
    write_bytes(_seal(path), digest.encode())


def _run(command: list[str]) -> str:
    """What a program prints; raises `KernelsUnavailable` with its first error, and `OSError` on a full disk."""
    environment = {**os.environ, "LC_ALL": "C"}  # its errors in English
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=BUILD_S, env=environment, check=False
        )
    except subprocess.TimeoutExpired:
        raise KernelsUnavailable(f"{command[0]} took more than {BUILD_S:.0f} s") from None
    except OSError as error:
        raise KernelsUnavailable(f"{command[0]} does not start: {error.strerror or error}") from error
    if "No space left on device" in done.stderr:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if "error" in line.lower()] or done.stderr.splitlines()
        raise KernelsUnavailable(f"{command[0]} failed: {(lines or ['no message'])[0].strip()}")
    return done.stdout
