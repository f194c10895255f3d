"""Graphs from the compile cache: the same numbers to the bit, on a real launch, whatever the cache holds."""

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mvit.compile_cache.store import Store
from mvit.files import file_digest, read_sealed, sealed, write_json
from mvit.models.kernels.build import library, support
from tests.conftest import TINY

pytestmark = pytest.mark.mindspore

RECIPE = (*TINY, "train.epochs=1", "train.max_steps=3", "train.log_every_steps=1", "data.workers=1", "tracking=none")
OTHER_INPUTS = ("optimizer.lr=5e-4", "optimizer.weight_decay=0.1", "seed=3", "schedule=constant")


@pytest.fixture
def cached(launch, tmp_path):
    """Launches with a compile cache of its own, and the kernels of this machine."""
    cache = tmp_path / "cache" / "mvit"
    cache.mkdir(parents=True)
    isa = support().isa
    if isa:
        (cache / "kernels").symlink_to(library(isa).parent)

    def start(*overrides):
        done = launch(*RECIPE, *overrides, env={"XDG_CACHE_HOME": str(cache.parent)})
        assert done.code == 0, done.err
        return done

    start.store = Store(cache / "graphs")
    return start


def state(done) -> tuple[str, list[float]]:
    """Digest of the last checkpoint's tensors, and the losses."""
    return file_digest(done.folder / "checkpoints" / "step-00000003.safetensors"), done.losses()


def was_cached(done) -> bool:
    return bool(done.result()["metrics"]["perf/compile_cached"])


ALL_GRAPHS = ("train.accumulation=2", "train.ema_momentum=0.01", "augment=mixup_cutmix", "train.clip_norm=1")


def test_runs_that_differ_in_inputs_share_their_graphs_to_the_bit(cached):
    assert not was_cached(cached(*ALL_GRAPHS))
    loaded = cached(*ALL_GRAPHS, *OTHER_INPUTS)
    compiled = cached(*ALL_GRAPHS, *OTHER_INPUTS, "topology.compile_cache=false")
    assert was_cached(loaded)
    assert not was_cached(compiled)
    assert "loaded accumulate in" in loaded.out
    assert state(loaded) == state(compiled)
    assert "(cached)" in loaded.out
    planned = cached(*ALL_GRAPHS, *OTHER_INPUTS, "dry_run=true").out
    assert "is in the compile cache" in planned
    assert len(cached.store.entries()) == 1


def test_a_graph_of_something_else_is_found_out_and_compiled_anew(cached):
    """As if the key had missed what makes the difference."""
    right = cached()
    (stored,) = cached.store.entries()
    cached("train.label_smoothing=0.3")
    (other,) = (entry for entry in cached.store.entries() if entry.key != stored.key)
    put_in_place_of(cached.store.root, other.key, stored.key)
    again = cached()
    assert "held graphs that compute something else: compiled anew" in again.err
    assert not was_cached(again)
    assert state(again) == state(right)
    assert cached.store.entry(stored.key) is None  # gone, and made anew by the next one
    assert not was_cached(cached())
    assert was_cached(cached())


def test_a_graph_that_mindspore_cannot_read_is_compiled_anew(cached):
    """As if another version had written it, under a digest that is right."""
    right = cached()
    (stored,) = cached.store.entries()
    path = cached.store.root / stored.key / "entry.json"
    entry = json.loads(path.read_text())
    for name in entry["files"]:
        if name.endswith(".mindir"):
            file = path.parent / name
            file.write_bytes(file.read_bytes()[: -file.stat().st_size // 3])
            entry["files"][name] = file_digest(file)
    write_json(path, sealed(entry))
    again = cached()
    assert not was_cached(again)
    assert state(again) == state(right)


def put_in_place_of(root: Path, other: str, key: str) -> None:
    """The graphs of another key, with the check of this one."""
    check = read_sealed(root / key / "entry.json")["check"]
    shutil.rmtree(root / key)
    shutil.copytree(root / other, root / key)
    path = root / key / "entry.json"
    write_json(path, sealed({**json.loads(path.read_text()), "check": check}))


def test_of_two_first_runs_at_once_one_compiles_and_the_other_waits_for_it(cached):
    with ThreadPoolExecutor(2) as pool:
        runs = list(pool.map(lambda _: cached(), range(2)))
    assert sorted(map(was_cached, runs)) == [False, True]
    assert state(runs[0]) == state(runs[1])


def test_a_cache_that_cannot_be_written_costs_a_line(cached):
    (cached.store.root).mkdir()
    (cached.store.root / "locks").write_text("a file where a folder belongs")
    done = cached()
    assert "the compile cache cannot be used" in done.err
    assert not was_cached(done)
