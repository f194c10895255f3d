"""The kernels' library: built once, kept whole, and why it cannot be."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mvit.data import dataset
from mvit.errors import ConfigError
from mvit.models.kernels import build
from mvit.parent.host import this_host
from mvit.parent.kernels import library_of
from mvit.parent.plan import make_plan
from tests.conftest import CHECKOUT


def test_a_cpu_gets_the_widest_vectors_that_it_has():
    assert build.isas_of(frozenset(build.AVX512_FLAGS | {"sse"}), "x86_64") == ("avx512", "avx2")
    assert build.isas_of(frozenset(build.AVX512_FLAGS - {"avx512bw"}), "x86_64") == ("avx2",)
    assert build.isas_of(frozenset(build.AVX2_FLAGS - {"fma"}), "x86_64") == ()
    assert build.isas_of(frozenset({"asimd"}), "aarch64") == ("neon",)
    assert build.isas_of(frozenset(), "riscv64") == ()


def no_temporary_folder():
    raise FileNotFoundError(2, "No usable temporary directory found")


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache of the user, and no other place to put a library."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(build.tempfile, "gettempdir", no_temporary_folder)
    # One source that compiles at once stands for all of them.
    native = tmp_path / "native"
    native.mkdir()
    (native / "one.cc").write_text('extern "C" int one() { return 1; }\n')
    monkeypatch.setattr(build, "NATIVE", native)
    return tmp_path / "cache" / "mvit" / "kernels"


ISA: build.Isa = build.this_cpu()[0]


def test_a_library_is_built_once_and_again_when_a_source_or_a_flag_differs(cache, monkeypatch):
    built = []
    first = build.library(ISA, before_build=lambda: built.append(1))
    assert first.parent == cache
    assert build.library(ISA, before_build=lambda: built.append(2)) == first
    (build.NATIVE / "one.cc").write_text('extern "C" int one() { return 2; }\n')
    second = build.library(ISA, before_build=lambda: built.append(3))
    monkeypatch.setattr(build, "COMMON_FLAGS", (*build.COMMON_FLAGS, "-DX=1"))
    third = build.library(ISA, before_build=lambda: built.append(4))
    assert built == [1, 3, 4]
    assert len({first, second, third}) == 3
    assert sorted(path.suffix for path in cache.iterdir() if path.name != "lock") == 3 * [".sha256"] + 3 * [".so"]


@pytest.mark.parametrize("damage", ["torn", "flipped", "unsealed", "seal"])
def test_a_damaged_library_is_never_loaded_but_built_again(cache, damage):
    path = build.library(ISA)
    whole = path.read_bytes()
    match damage:
        case "torn":
            path.write_bytes(whole[:-100])
        case "flipped":
            path.write_bytes(whole[:500] + bytes([whole[500] ^ 1]) + whole[501:])
        case "unsealed":
            path.with_name(f"{path.name}.sha256").unlink()
        case "seal":
            path.with_name(f"{path.name}.sha256").write_bytes(b"\xff")
    built = []
    assert build.library(ISA, before_build=lambda: built.append(1)) == path
    assert built == [1]
    assert path.read_bytes() == whole


def test_without_a_compiler_a_cached_library_is_used(cache, monkeypatch):
    path = build.library(ISA)
    monkeypatch.setattr(build, "_compiler", lambda: None)
    assert build.library(ISA) == path
    path.unlink()
    with pytest.raises(build.KernelsUnavailable, match=r"no C\+\+ compiler: install g\+\+"):
        build.library(ISA)


@pytest.mark.parametrize(
    ("program", "line"),
    [
        (None, r"CXX=.*/cxx is not a program"),
        ("exit 0", r".*/cxx made no library"),
        ("exit 3", r".*/cxx failed: no message"),
        ("[ $1 = --version ] || { echo 'cc1: fatal error: x' >&2; exit 1; }", r".*/cxx failed: cc1: fatal error: x"),
    ],
    ids=["missing", "idle", "silent", "failing"],
)
def test_a_compiler_that_is_none_is_reported_in_one_line(cache, tmp_path, monkeypatch, program, line):
    monkeypatch.setenv("CXX", str(tmp_path / "cxx"))
    if program:
        (tmp_path / "cxx").write_text(f"#!/bin/sh\n{program}\n")
        (tmp_path / "cxx").chmod(0o755)
    with pytest.raises(build.KernelsUnavailable, match=rf"^{line}$"):
        build.library(ISA)


def test_a_full_disk_leaves_the_temporary_folder(cache, tmp_path, monkeypatch):
    """g++ says so itself, here by a stand-in for the folder of the user alone."""
    (tmp_path / "cxx").write_text(
        "#!/bin/sh\n"
        f"case \"$*\" in *{cache}*) echo 'fatal error: closing x: No space left on device' >&2; exit 1;; esac\n"
        'exec g++ "$@"\n'
    )
    (tmp_path / "cxx").chmod(0o755)
    monkeypatch.setenv("CXX", str(tmp_path / "cxx"))
    with pytest.raises(build.KernelsUnavailable, match=r"^no library in .*/mvit/kernels: No space left on device$"):
        build.library(ISA)
    monkeypatch.setattr(build.tempfile, "gettempdir", lambda: str(tmp_path))
    assert build.library(ISA).parent == tmp_path / f"mvit-kernels-{os.getuid()}"


def test_a_library_that_does_not_load_is_no_library(cache, monkeypatch):
    (build.NATIVE / "one.cc").write_text('extern "C" int missing();\nextern "C" int one() { return missing(); }\n')
    monkeypatch.setattr(build, "COMMON_FLAGS", ("-fPIC",))
    monkeypatch.setenv("LD_BIND_NOW", "1")
    with pytest.raises(
        build.KernelsUnavailable, match=r"^no library in .*: what was built cannot be loaded \(.*missing"
    ):
        build.library(ISA)
    assert not list(cache.glob("*.sha256"))


def test_a_compiler_that_fails_is_reported_in_one_line(cache):
    (build.NATIVE / "one.cc").write_text("int one( {\n")
    with pytest.raises(build.KernelsUnavailable, match=r"^.*failed: .*one.cc:1.*error.*$") as caught:
        build.library(ISA)
    assert "\n" not in str(caught.value)


def test_a_cache_that_cannot_be_written_leaves_the_temporary_folder_and_then_a_line(cache, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/nowhere")
    with pytest.raises(build.KernelsUnavailable, match=r"no library in /proc/nowhere/mvit/kernels: "):
        build.library(ISA)
    monkeypatch.setattr(build.tempfile, "gettempdir", lambda: str(tmp_path))
    assert build.library(ISA).parent == tmp_path / f"mvit-kernels-{os.getuid()}"
    build.library(ISA).parent.chmod(0o777)  # anybody could have put code there
    with pytest.raises(build.KernelsUnavailable):
        build.library(ISA)


def test_of_two_first_launches_one_builds_and_the_other_waits(tmp_path):
    program = (
        "from mvit.models.kernels import build\n"
        "path = build.library(build.this_cpu()[0], before_build=lambda: print('builds'))\n"
        "print(path)"
    )
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path), "PYTHONPATH": str(CHECKOUT)}
    processes = [
        subprocess.Popen([sys.executable, "-c", program], env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    lines = [process.communicate(timeout=200)[0].splitlines() for process in processes]
    assert sorted(map(len, lines)) == [1, 2]
    assert len({Path(line[-1]) for line in lines}) == 1


def test_a_frozen_run_whose_library_cannot_be_had_is_refused_in_one_line(cache, monkeypatch, configured):
    monkeypatch.setattr(build, "_compiler", lambda: None)
    config = configured()
    plan = make_plan(config, host=this_host(), facts=dataset.survey(config.data).facts)
    line = r"^kernels: '\w+' is what the run was planned with, and is not available: no C\+\+ compiler: install g\+\+"
    with pytest.raises(ConfigError, match=line) as caught:
        library_of(plan, say=print)
    assert "\n" not in str(caught.value)
