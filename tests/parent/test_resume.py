"""What cannot be resumed is refused in one line, before a process starts."""

import json
import os
import socket

import pytest

from mvit.data import dataset
from mvit.files import write_json
from mvit.parent import execute, orphans
from mvit.parent.plan import make_plan
from mvit.parent.resume import resume
from mvit.process import process_start
from mvit.rundir import checkpoints, ownership, paths
from mvit.rundir.ending import Outcome, record_end
from mvit.rundir.frozen import write_run
from mvit.rundir.paths import RunDir
from mvit.rundir.status import read_statuses
from tests.parent.test_plan import HOST


@pytest.fixture
def made(tmp_path, configured):
    """A run folder that no process looks after any more."""

    def make(*overrides, name="20260101-000000-abcd", fingerprint=None):
        config = configured("tracking=none", f"runs_dir={tmp_path}", *overrides)
        facts = dataset.look(config.data)
        facts = facts.model_copy(update={"fingerprint": fingerprint or facts.fingerprint})
        folder = paths.create_run_dir(tmp_path / "runs" / config.name / name)
        write_run(folder, config, make_plan(config, host=HOST, facts=facts))
        return folder

    return make


def refused(capsys, path, *overrides, fork=False):
    code = resume(path, overrides, fork=fork)
    out, err = capsys.readouterr()
    assert (code, out) == (2, "")
    return err


def test_what_is_no_run_folder_is_refused(capsys, tmp_path):
    assert refused(capsys, tmp_path) == f"mvit: {tmp_path} is no run folder: run.json is missing or torn\n"
    assert "is no run folder" in refused(capsys, tmp_path / "nowhere")


def test_another_version_and_a_changed_file_are_refused(capsys, made):
    folder = made()
    content = json.loads(folder.run.read_text())
    folder.run.write_text(json.dumps({**content, "schema": 1}))
    assert "has schema 1" in refused(capsys, folder.path)
    content["config"]["seed"] = 2
    folder.run.write_text(json.dumps(content))
    assert "was changed after the run was made" in refused(capsys, folder.path)


def test_a_changed_configuration_is_refused_with_the_paths(capsys, made):
    err = refused(capsys, made().path, "optimizer.lr=1e-3", "train.epochs=5", "augment.policy.kind=x", "model=small")
    assert err.splitlines() == [
        "mvit: augment.policy.kind=x: sets no value of the run; set one of run.json's, as optimizer.lr=1e-3",
        "mvit: model=small: chooses a group; set its single values, as optimizer.lr=1e-3",
    ]
    err = refused(capsys, made(name="b").path, "optimizer.lr=1e-3", "train.epochs=5", "train.freeze=[stem.*]")
    remedy = "leave it out, or continue as a new run with --fork"
    assert err.splitlines() == [
        f"mvit: optimizer.lr: 0.001 is not what the run was made with, 0.002; {remedy}",
        f"mvit: train.freeze: ['stem.*'] is not what the run was made with, []; {remedy}",
    ]


def test_limits_and_restarts_may_be_others(made, monkeypatch):
    folder, followed = made(), []

    def follow(config, plan, folder, **_):
        followed.append(config)
        return execute.Ended(Outcome("FINISHED", 0), None, None)

    monkeypatch.setattr(execute, "follow", follow)
    assert resume(folder.path, ["limits.step_s=5", "train.max_restarts=2"], fork=False) == 0
    assert (followed[0].limits.step_s, followed[0].train.max_restarts) == (5.0, 2)


def test_data_that_changed_is_refused(capsys, made):
    assert "its data has changed since the run was made" in refused(capsys, made(fingerprint="0").path)


def test_a_finished_run_is_refused(capsys, made):
    folder = made()
    record_end(folder, "FINISHED", exit_code=0, error=None)
    assert "is FINISHED" in refused(capsys, folder.path)


def test_a_run_whose_launcher_lives_is_refused(capsys, made):
    folder = made()
    ownership.claim(folder)
    content = json.loads(folder.launcher.read_text())
    parent = os.getppid()
    write_json(folder.launcher, {**content, "pid": parent, "started": process_start(parent)})
    assert f"is still running: its launcher is process {parent}" in refused(capsys, folder.path)
    write_json(folder.launcher, {**content, "pid": parent, "started": 1})
    assert ownership.alive(folder) is None


def test_a_run_whose_worker_still_lives_is_refused(capsys, made):
    folder = made()
    pid = os.getppid()
    status = {"rank": 0, "pid": pid, "started": process_start(pid), "stage": "step", "step": 3}
    status |= {"error": None, "time": 1.0}
    write_json(folder.status / "0.json", status)
    assert f"is still running: process {pid} of it has not ended" in refused(capsys, folder.path)


def test_a_fork_wants_a_whole_checkpoint(capsys, made):
    folder = made()
    assert "has no checkpoint to begin with" in refused(capsys, folder.path, fork=True)
    (folder.checkpoints / "step-00000007.safetensors").write_bytes(b"torn")
    write_json(folder.checkpoints / "step-00000007.json", {"step": 7, "sha256": "0" * 64})
    assert [found.step for found in checkpoints.newest_first(folder)] == [7]
    assert "has no checkpoint to begin with" in refused(capsys, folder.path, fork=True)


def test_an_orphan_is_closed_once_and_a_living_run_is_not(made, tmp_path, capsys):
    folder, other, ended = made(), made(name="b"), made(name="c")
    ownership.claim(ended)
    record_end(ended, "FAILED", exit_code=1, error=None)
    ownership.claim(other)
    ownership.claim(folder)
    content = json.loads(folder.launcher.read_text())
    write_json(folder.launcher, {**content, "started": 1})
    for _ in range(2):
        orphans.close(tmp_path / "runs")
    assert capsys.readouterr().out == f"mvit: {folder.path.name} was left without an end; it is recorded as KILLED\n"
    assert json.loads(folder.end.read_text())["status"] == "KILLED"
    assert json.loads(folder.error.read_text())["kind"] == "killed"
    assert not other.end.exists()


def test_an_orphan_whose_workers_came_to_the_end_is_finished(made, tmp_path):
    folder = made()
    me = {"host": socket.gethostname(), "boot": ownership._boot(), "pid": 1, "started": 1, "time": 0.0}
    write_json(folder.launcher, me)
    write_json(folder.result, {"metrics": {}})
    status = {"rank": 0, "pid": 1, "started": 1, "stage": "done", "step": 3, "error": None, "time": 1.0}
    write_json(folder.status / "0.json", status)
    orphans.close(tmp_path / "runs")
    assert json.loads(folder.end.read_text())["status"] == "FINISHED"


def test_a_sweep_that_still_runs_is_refused(capsys, made):
    trial = made(name="sweep/trial-a")
    done = made(name="sweep/trial-b")
    assert "holds runs that are no sweep; name one of them, as trial-b" in refused(capsys, trial.path.parent)
    write_json(trial.path.parent / "sweep.json", {"trials": []})
    ownership.claim(done)
    record_end(done, "FINISHED", exit_code=0, error=None)
    assert "is still running" in refused(capsys, RunDir(trial.path.parent).path)
    assert "fork one of its trials" in refused(capsys, trial.path.parent, fork=True)


def test_the_trials_of_a_sweep_that_did_not_finish_are_resumed_one_after_the_other(capsys, made, monkeypatch):
    trials = [made(name=f"sweep/trial-{letter}") for letter in "abc"]
    write_json(trials[0].path.parent / "sweep.json", {"trials": []})
    record_end(trials[1], "FINISHED", exit_code=0, error=None)
    resumed = []

    def follow(config, plan, folder, **_):
        resumed.append(folder.path.name)
        record_end(folder, "FINISHED", exit_code=0, error=None)
        return execute.Ended(Outcome("FINISHED", 0), None, None)

    monkeypatch.setattr(execute, "follow", follow)
    monkeypatch.setattr(ownership, "lives", lambda _: False)
    assert resume(trials[0].path.parent, [], fork=False) == 0
    assert resumed == ["trial-a", "trial-c"]
    assert "mvit: sweep FINISHED, " in capsys.readouterr().out


def test_a_sweep_of_which_trials_were_not_begun_is_not_finished(capsys, made, monkeypatch):
    done = made(name="sweep/trial-a")
    record_end(done, "FINISHED", exit_code=0, error=None)
    asked = [{"overrides": ["seed=1"], "folder": "trial-a", "refused": False}]
    asked += [{"overrides": ["seed=2", "name=b c"], "folder": None, "refused": False}]
    asked += [{"overrides": ["seed=-1"], "folder": None, "refused": True}]
    write_json(done.path.parent / "sweep.json", {"trials": asked})
    monkeypatch.setattr(ownership, "lives", lambda _: False)
    assert resume(done.path.parent, [], fork=False) == 1
    out = capsys.readouterr().out
    assert "mvit: sweep FAILED, " in out
    assert out.endswith("1 FINISHED, 1 not begun\nmvit: 1 trial was not begun:\n  python launch.py seed=2 'name=b c'\n")


def test_without_a_whole_checkpoint_nothing_is_begun(capsys, made):
    folder = made()
    (folder.checkpoints / "step-00000003.safetensors").write_bytes(b"x")
    (folder.checkpoints / "step-00000003.json").write_text("[1]")
    assert "none of its checkpoints is whole; remove them to begin anew" in refused(capsys, folder.path)
    assert not folder.launcher.exists()


@pytest.mark.parametrize("end", ["FINISHED", {"x": 1}, 4, None])
@pytest.mark.parametrize("lacks", [None, "pid", "started"])
def test_a_launcher_json_of_another_shape_stops_no_launch(made, tmp_path, end, lacks):
    folder = made()
    said = {"host": socket.gethostname(), "boot": ownership._boot(), "pid": 1, "started": 1, "end": end}
    said.pop(lacks or "", None)
    write_json(folder.launcher, said)
    orphans.close(tmp_path / "runs")
    assert folder.end.exists() == (lacks is None)


def test_statuses_of_another_shape_are_none(made):
    folder = made()
    said = {"rank": 0, "pid": 1, "started": 1, "stage": "done", "step": 3, "error": None, "time": 1.0}
    for rank, change in enumerate([{"rank": "x"}, {"time": "x"}, {"pid": None}, {"error": "x"}, {}]):
        write_json(folder.status / f"{rank}.json", {**said, "rank": rank, **change})
    assert [status["rank"] for status in read_statuses(folder)] == [4]
