"""First runs on a machine that lacks something: each trains, and one line says how."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from mvit.models.kernels.build import support
from tests.conftest import TINY

pytestmark = [
    pytest.mark.mindspore,
    pytest.mark.skipif(support().isa is None, reason="the fused kernels do not run on this CPU"),
]

RECIPE = (*TINY, "train.epochs=1", "train.max_steps=2", "data.workers=1", "tracking=none")
BUILDING = "mvit: compiling the fused kernels for this CPU, once\n"


@pytest.fixture
def first(launch, tmp_path):
    """Launches of a user who has no cache yet."""
    (tmp_path / "temporary").mkdir()

    def start(*overrides, **env):
        home = {"XDG_CACHE_HOME": str(tmp_path / "cache"), "TMPDIR": str(tmp_path / "temporary")}
        done = launch(*RECIPE, *overrides, env={**home, **env})
        assert done.code == 0, done.err
        assert len(done.losses()) == 1
        return done

    return start


def kernels_of(done):
    (line,) = [line for line in done.out.splitlines() if line.startswith("  kernels ")]
    return line.removeprefix("  kernels ").strip()


def test_without_a_compiler_the_plain_form_trains(first, tmp_path):
    done = first(PATH=str(tmp_path))
    assert BUILDING not in done.out
    reason = "no C++ compiler: install g++ 9 or later (Debian: apt install g++)"
    assert kernels_of(done) == f"plain (several times slower than fused; {reason})"


@pytest.mark.long
def test_a_home_that_cannot_be_written_is_passed_over(first, tmp_path):
    done = first(XDG_CACHE_HOME="/sys/cache")  # where not even root makes a folder
    assert done.out.count(BUILDING) == 1
    assert support().isa in kernels_of(done)
    assert list((tmp_path / "temporary").glob("mvit-kernels-*/libmvit-*.so"))


@pytest.mark.long
def test_of_two_first_runs_at_once_one_builds_the_kernels(first):
    with ThreadPoolExecutor(2) as pool:
        runs = list(pool.map(lambda seed: first(f"seed={seed}"), (0, 1)))
    assert sum(done.out.count(BUILDING) for done in runs) == 1
    assert {kernels_of(done) for done in runs} == {kernels_of(runs[0])}
    assert support().isa in kernels_of(runs[0])
