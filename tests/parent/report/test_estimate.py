"""What past runs took: the newest finished ones that compiled the same graphs, of every name and in sweeps."""

import json
import os
import time

import pytest

from mvit.config import BenchmarkRun, ProfileRun
from mvit.data import dataset
from mvit.files import write_json
from mvit.parent.host import this_host
from mvit.parent.plan import make_plan
from mvit.parent.report import estimate
from mvit.parent.report.estimate import past_runs
from mvit.parent.report.past_run import num_evaluations
from mvit.rundir.frozen import Run, write_run
from mvit.rundir.paths import create_run_dir
from mvit.rundir.result import BenchmarkResult, ProfileResult, TrainResult, write_result


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


def test_the_journals_of_the_newest_alone_are_read(finish, tmp_path, monkeypatch):
    read = []
    monkeypatch.setattr(estimate, "MOST_TIMED", 2)
    monkeypatch.setattr(estimate, "times_of", lambda folder, *_, **__: read.append(folder.path.name[-4:]))
    finish("a/20260101-000000-aaaa", seconds=1.0, hours=3)
    finish("a/20260101-000001-bbbb", seconds=1.0, hours=2)
    run = finish("a/20260101-000002-cccc", seconds=1.0, hours=1)
    past = past_runs(run.config, run.plan, tmp_path / "runs")
    assert read == ["cccc", "bbbb"]
    assert past.compile_time("evaluate") == "about 1.0 s (from 3 past runs)"


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
    assert past.run_time_s() is None
    assert past.run_time() == "unknown: no finished run of this model, shape and topology"


def tell(folder, graphs, entries, *, cached=False, began=1000.0, left=True):
    """The journal and the end of a run: 3 s to the first graph, then each entry after so many seconds more."""
    lines, now = [], 1003.0
    for graph, seconds in graphs.items():
        now += seconds
        lines.append({"time": now, "event": "compiled", "graph": graph, "seconds": seconds, "cached": cached})
    for seconds, entry in entries:
        now += seconds
        lines.append({"time": now, **entry})
    folder.journal.write_text("".join(json.dumps(line) + "\n" for line in lines))
    end = {"status": "FINISHED", "exit_code": 0, "error": None, "time": now + 1.5, "mirrored": True}
    write_json(folder.end, {**end, "left": now + 3.5} if left else end)
    write_json(folder.launcher, {"pid": 1, "started": 1, "host": "here", "boot": "", "began": began})


@pytest.fixture
def executed(finish):
    """Makes a run with a journal, as one that began at 1000 s.

    3 s to the first graph, which take 8 s; 1 s to the end of the first step; 0.5 s for each other step and 2 s for an
    evaluation; 1.5 s to the end of the run, and 2 s more for MLflow.
    """

    def make(place, *overrides, cached=False, began=1000.0, left=True, step_ms=500.0):
        run = finish(place, *overrides, seconds=2.0, cached=cached)
        plan, every = run.plan, run.config.train.eval_every_epochs
        metrics = {"perf/step_ms": step_ms, "perf/compile_cached": float(cached)} if step_ms else {}
        graphs = {"train": 6.0, "evaluate": 2.0}
        write_result(
            run.folder, TrainResult(task="train", steps=plan.last_step, metrics=metrics, graphs=graphs, compiled=1)
        )
        evaluations = num_evaluations(plan, every_epochs=every)
        entries = [
            (1.0, {"step": 1, "epoch": 1, "metrics": {"perf/first_step_s": 0.7}}),
            (
                0.5 * (plan.last_step - 1) + 2.0 * evaluations,
                {"step": plan.last_step, "epoch": 1, "metrics": {"val/acc1": 50.0}},
            ),
        ]
        tell(run.folder, graphs, entries, cached=cached, began=began, left=left)
        return run

    return make


STEPS = ("train.max_steps=3", "train.epochs=1")


def test_the_time_of_the_whole_run_is_from_the_command_to_its_return(executed, tmp_path):
    run = executed("a/20260101-000000-aaaa", *STEPS)
    past = past_runs(run.config, run.plan, tmp_path / "runs")
    assert past.run_time_s() == pytest.approx(3 + 8 + 1 + 2 * 0.5 + 2 + 3.5)
    assert past.run_time() == "about 0:18 (from 1 past run)"


def test_a_longer_run_takes_as_much_more_as_its_steps_and_evaluations(executed, configured, tmp_path):
    executed("a/20260101-000000-aaaa", *STEPS)
    config = configured("train.epochs=2", "train.max_steps=null")
    plan = make_plan(config, host=this_host(), facts=dataset.survey(config.data).facts)
    expected = 3 + 8 + 1 + (plan.last_step - 1) * 0.5 + 2 * 2 + 3.5
    assert past_runs(config, plan, tmp_path / "runs").run_time_s() == pytest.approx(expected)


def test_graphs_that_will_be_loaded_take_less_even_before_one_has_been(executed, tmp_path, monkeypatch):
    run = executed("a/20260101-000000-aaaa", *STEPS)
    monkeypatch.setattr(estimate, "are_stored", lambda *_, **__: True)
    past = past_runs(run.config, run.plan, tmp_path / "runs")
    assert past.run_time_s() == pytest.approx(3 + estimate.LOADED_SHARE * 8 + 1 + 2 * 0.5 + 2 + 3.5)


def test_a_run_that_does_not_say_when_its_launcher_left_ends_with_its_status(executed, tmp_path):
    run = executed("a/20260101-000000-aaaa", *STEPS, left=False)
    assert past_runs(run.config, run.plan, tmp_path / "runs").run_time_s() == pytest.approx(3 + 8 + 1 + 1 + 2 + 1.5)


def test_a_run_that_does_not_say_when_its_launcher_began_began_with_its_file(executed, tmp_path):
    run = executed("a/20260101-000000-aaaa", *STEPS, began=None)
    os.utime(run.folder.launcher, (1001.0, 1001.0))
    assert past_runs(run.config, run.plan, tmp_path / "runs").run_time_s() == pytest.approx(2 + 8 + 1 + 1 + 2 + 3.5)


def test_runs_of_several_attempts_tell_the_time_of_steps_alone_and_those_without_a_steady_state_none(
    executed, tmp_path
):
    run = executed("a/20260101-000000-aaaa", *STEPS)
    for attempt in (1, 2):
        (run.folder.logs / f"attempt-{attempt}").mkdir(exist_ok=True)
    executed("a/20260101-000000-bbbb", *STEPS, step_ms=None)
    past = past_runs(run.config, run.plan, tmp_path / "runs")
    assert past.run_time_s() == 8 + 3 * 0.5
    assert past.run_time() == "at least 0:09 (from 1 past run), beside start-up and evaluation"


@pytest.mark.parametrize(
    ("last_step", "every", "evaluations"),
    [(40, 1, 4), (40, 3, 2), (40, 4, 1), (35, 1, 4), (25, 2, 2), (3, 5, 1)],
)
def test_the_last_epoch_is_always_evaluated(configured, last_step, every, evaluations):
    config = configured()
    plan = make_plan(config, host=this_host(), facts=dataset.survey(config.data).facts)
    plan = plan.model_copy(update={"steps_per_epoch": 10, "last_step": last_step})
    assert num_evaluations(plan, every_epochs=every) == evaluations


@pytest.mark.parametrize(
    ("overrides", "more", "steps"),
    [
        (("task=benchmark", "task.warmup_steps=1", "task.repeats=3"), ("task.repeats=11",), 4 * (1 + 11)),
        (("task=profile", "task.warmup_steps=1", "task.steps=2"), ("task.steps=5",), 2 * (1 + 2 * 5)),
    ],
)
def test_tasks_that_train_nothing_take_as_much_more_as_their_steps(configured, tmp_path, overrides, more, steps):
    config, longer = configured(*overrides), configured(*overrides, *more)
    assert isinstance(config, (BenchmarkRun, ProfileRun))
    facts = dataset.survey(config.data).facts
    plan, plan_of_longer = (make_plan(one, host=this_host(), facts=facts) for one in (config, longer))
    run = Run(create_run_dir(tmp_path / "runs/a/20260101-000000-aaaa"), config, plan)
    write_run(run)
    graphs = {graph.name: 2.0 for graph in plan.graphs}
    if config.task.kind == "benchmark":
        result = BenchmarkResult(task="benchmark", metrics={}, graphs=graphs, shapes=())
    else:
        result = ProfileResult(task="profile", metrics={}, graphs=graphs, profiles=())
    write_result(run.folder, result)
    entry = {"step": 0, "epoch": 0, "metrics": {"perf/peak_rss_mb": 1.0}}
    tell(run.folder, graphs, [(0.25 * len(config.shapes) * config.steps_of_a_shape, entry)])
    past = past_runs(longer, plan_of_longer, tmp_path / "runs")
    assert past.run_time_s() == pytest.approx(3 + sum(graphs.values()) + 0.25 * steps + 3.5)
