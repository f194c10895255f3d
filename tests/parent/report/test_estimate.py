"""What past runs took: the newest finished ones that compiled the same graphs, of every name and in sweeps."""

import os
import time

import pytest

from mvit.data import dataset
from mvit.parent.host import this_host
from mvit.parent.plan import make_plan
from mvit.parent.report import estimate
from mvit.parent.report.estimate import past_runs
from mvit.rundir.frozen import Run, write_run
from mvit.rundir.paths import create_run_dir
from mvit.rundir.result import TrainResult, write_result


@pytest.fixture(autouse=True)
def nothing_is_stored(monkeypatch):
    monkeypatch.setattr(estimate, "are_stored", lambda *_, **__: False)


@pytest.fixture
def finish(configured, tmp_path):
    """Makes a finished run whose graphs took so many seconds, so many hours ago."""

    def make(place, *overrides, seconds, hours=0, cached=None):
        config = configured(*overrides)
        plan = make_plan(config, host=this_host(), facts=dataset.survey(config.data).facts)
        run = Run(create_run_dir(tmp_path / "runs" / place), config, plan)
        write_run(run)
        graphs = {"train": 3.0 * seconds, "evaluate": seconds}
        metrics = {} if cached is None else {"perf/compile_cached": float(cached)}
        write_result(run.folder, TrainResult(task="train", steps=1, metrics=metrics, graphs=graphs, compiled=1))
        then = time.time() - 3600 * hours
        os.utime(run.folder.result, (then, then))
        return run

    return make


def test_runs_and_trials_of_the_same_graphs_are_found(finish, tmp_path):
    run = finish("a/20260101-000000-aaaa", seconds=1.0)
    finish("b/20260101-000001-bbbb/0-20260101-000002-cccc", seconds=3.0)
    finish("c/20260101-000000-dddd", "model=x_small", seconds=100.0)
    past = past_runs(run.config, run.plan, tmp_path / "runs")
    assert past.compile_s("train") == 6.0
    assert past.compile_all_s(["train", "evaluate"]) == 8.0
    assert past.compile_all_s(["train", "another"]) is None
    assert past.compile_time("train") == "about 6 s (from 2 past runs)"


def test_the_newest_are_read_whatever_their_name(finish, tmp_path, monkeypatch):
    monkeypatch.setattr(estimate, "MOST_READ", 2)
    finish("z/20250101-000000-aaaa", seconds=100.0, hours=30)
    finish("b/20260101-000000-bbbb", seconds=1.0, hours=2)
    run = finish("a/20260101-000001-cccc", seconds=1.0)
    assert past_runs(run.config, run.plan, tmp_path / "runs").compile_s("evaluate") == 1.0


def test_loading_is_estimated_from_runs_that_loaded(finish, tmp_path, monkeypatch):
    run = finish("a/20260101-000000-aaaa", seconds=2.0, cached=False)
    finish("a/20260101-000001-bbbb", seconds=0.25, cached=True)
    assert past_runs(run.config, run.plan, tmp_path / "runs").compile_time("train") == "about 6 s (from 1 past run)"
    monkeypatch.setattr(estimate, "are_stored", lambda *_, **__: True)
    past = past_runs(run.config, run.plan, tmp_path / "runs")
    assert past.cached
    assert past.compile_time("evaluate") == "about 0.2 s (from 1 past run)"


def test_without_a_past_run_nothing_is_estimated(finish, tmp_path):
    run = finish("a/20260101-000000-aaaa", seconds=1.0)
    past = past_runs(run.config, run.plan, tmp_path / "nowhere")
    assert past.compile_all_s(["train", "evaluate"]) is None
    assert past.compile_time("train") == "an unknown time"
