"""Where compiled graphs are kept, and whether those of a plan are there."""

import os

import pytest

from mvit.compile_cache.key import graph_key
from mvit.compile_cache.store import Store
from mvit.data import dataset
from mvit.parent.graphs import are_stored, store_of
from mvit.parent.host import this_host
from mvit.parent.plan import make_plan


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "mvit" / "graphs"


def test_graphs_are_kept_in_the_cache_of_the_user(configured, cache):
    assert store_of(configured().topology) == cache
    assert cache.is_dir()
    assert store_of(configured("topology.compile_cache=false").topology) is None
    assert store_of(configured("topology=ascend_1").topology) is None


def test_a_home_that_cannot_be_written_is_passed_over(configured, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert store_of(configured().topology) == tmp_path / f"mvit-graphs-{os.getuid()}"
    (tmp_path / f"mvit-graphs-{os.getuid()}").chmod(0o777)  # others could put graphs there
    assert store_of(configured().topology) is None


def test_a_plan_knows_whether_its_graphs_are_there(configured, cache):
    config = configured("model.kernels=plain")
    plan = make_plan(config, host=this_host(), facts=dataset.survey(config.data).facts)
    assert not are_stored(config, plan, environment={})

    key = graph_key(config, plan, library=None, environment=os.environ, cores=plan.cores or 0)
    store = Store(cache)
    with store.workspace() as work:
        (work / "graph").write_bytes(b"1")
        store.put(key, work, title="", seconds={}, check="")
    assert are_stored(config, plan, environment={})
    assert not are_stored(config, plan, environment={"MS_DEV_RUNTIME_CONF": "inline:False"})
