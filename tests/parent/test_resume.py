"""What cannot be resumed is refused in one line, before a process starts."""

import errno
import io
import json
import os
import socket
import sys

import numpy as np
import pytest
from safetensors.numpy import save_file

from mvit.cli.main import main
from mvit.data import dataset
from mvit.errors import RunDirError
from mvit.files import json_digest, write_json
from mvit.models.spec import parameter_shapes
from mvit.parent import orphans, resume, verdict
from mvit.parent.command import Command
from mvit.parent.plan import make_plan
from mvit.parent.reopen import reopen
from mvit.parent.sweep import resume as sweep_resume
from mvit.process import process_start
from mvit.rundir import checkpoints, ending, launcher, ownership, paths
from mvit.rundir.ending import Outcome, record_end
from mvit.rundir.frozen import Run, read_run, write_run
from mvit.rundir.ledger import Ledger, SweepRequest, TrialEnded, TrialFrozen, read_events
from mvit.rundir.paths import RunDir
from mvit.rundir.state import run_status, status_of_trials, sweep_status
from mvit.rundir.status import read_statuses
from mvit.rundir.sweep import trials_of
from tests.conftest import SWEEP
from tests.data.test_dataset import make_folder
from tests.parent.test_plan import HOST

STATUS = {"rank": 0, "host": socket.gethostname(), "pid": 1, "started": 1, "stage": "done", "step": 3, "marks": 0}
STATUS |= {"error": None, "time": 1.0}


@pytest.fixture
def made(tmp_path, configured):
    """A run folder that no process looks after any more."""

    def make(*overrides, name="20260101-000000-abcd", fingerprint=None):
        config = configured("tracking=none", f"runs_dir={tmp_path}", *overrides)
        facts = dataset.survey(config.data).facts
        facts = facts.model_copy(update={"fingerprint": fingerprint or facts.fingerprint})
        folder = paths.create_run_dir(tmp_path / "runs" / config.name / name)
        write_run(Run(folder, config, make_plan(config, host=HOST, facts=facts)))
        return folder

    return make


def refused(capsys, path, *overrides, fork=False):
    code = main(["resume", str(path), *overrides, *(["--fork"] if fork else [])])
    out, err = capsys.readouterr()
    assert (code, out) == (2, "")
    return err


def test_what_is_no_run_folder_is_refused(capsys, tmp_path):
    assert refused(capsys, tmp_path) == f"mvit: {tmp_path} is not a run folder: run.json is missing or torn\n"
    assert "is not a run folder" in refused(capsys, tmp_path / "nowhere")


def test_another_version_and_a_changed_file_are_refused(capsys, made):
    folder = made()
    content = json.loads(folder.run.read_text())
    folder.run.write_text(json.dumps({**content, "schema": 1}))
    assert "has schema 1" in refused(capsys, folder.path)
    content["config"]["seed"] = 2
    folder.run.write_text(json.dumps(content))
    assert "was edited after the run was frozen" in refused(capsys, folder.path)


def test_a_changed_configuration_is_refused_with_the_paths(capsys, made):
    err = refused(capsys, made().path, "optimizer.lr=1e-3", "train.epochs=5", "augment.policy.kind=x", "model=small")
    assert err.splitlines() == [
        "mvit: model=small: groups can be chosen only at launch; set single values, such as optimizer.lr=1e-3",
        "mvit: augment.policy.kind: 'x' is not a kind of policy; use one of: autoaugment, randaugment, trivialaugment",
    ]
    err = refused(capsys, made(name="b").path, "optimizer.lr=1e-3", "train.epochs=5", "train.freeze=[stem.*]")
    remedy = "leave it out, or continue as a new run with --fork"
    assert err.splitlines() == [
        f"mvit: optimizer.lr: 0.001 differs from what the run was made with, 0.002; {remedy}",
        f"mvit: train.freeze: ['stem.*'] differs from what the run was made with, []; {remedy}",
    ]


@pytest.fixture
def followed(monkeypatch):
    """The runs that would be executed; each of them ends FINISHED."""
    runs = []

    def follow(run, *, slot, mirrored, until_epoch):
        runs.append(run)
        record_end(run.folder, "FINISHED", exit_code=0)
        return Outcome("FINISHED", 0)

    monkeypatch.setattr(resume, "follow", follow)
    return runs


def test_limits_and_restarts_may_be_others(made, followed):
    assert main(["resume", str(made().path), "limits.step_s=5", "train.max_restarts=2"]) == 0
    (run,) = followed
    assert (run.config.limits.step_s, run.config.train.max_restarts) == (5.0, 2)


def test_data_that_changed_is_refused(capsys, made):
    assert "its data has changed since the run was made" in refused(capsys, made(fingerprint="0").path)


def test_a_run_without_the_index_of_its_data_is_refused(capsys, made, tmp_path):
    data = ("data=imagefolder", f"data.root={make_folder(tmp_path / 'data')}", "train.global_batch_size=2")
    folder = made(*data)
    missing = f"mvit: {folder.data_index}: the run's data index is missing; start a new run\n"
    assert refused(capsys, folder.path) == missing
    folder.data_index.write_bytes(b"")
    damaged = f"mvit: {folder.data_index}: the run's data index is damaged; start a new run\n"
    assert refused(capsys, folder.path) == damaged


def test_a_prediction_is_reopened_from_any_directory_without_what_standard_input_gave(
    made, configured, tmp_path, monkeypatch
):
    of_training = made()
    shapes = parameter_shapes(read_run(of_training).config.model, num_classes=10)
    save_file({name: np.zeros(shape, np.float32) for name, shape in shapes.items()}, tmp_path / "x.safetensors")
    (tmp_path / "a.jpg").write_bytes(b"no image")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "stdin", io.StringIO("a.jpg\n"))
    config = configured("task=predict", "task.checkpoint=x.safetensors", "data.images=-", "tracking=none")
    survey = dataset.survey(config.data)
    folder = paths.create_run_dir(tmp_path / "runs" / "predictions" / "20260101-000000-abce")
    survey.write_index(folder.data_index)
    write_run(Run(folder, config, make_plan(config, host=HOST, facts=survey.facts)))
    monkeypatch.chdir("/")
    assert reopen(folder).config == config
    (tmp_path / "a.jpg").write_bytes(b"another image")
    with pytest.raises(RunDirError, match="its data has changed"):
        reopen(folder)
    folder.data_index.unlink()
    with pytest.raises(RunDirError, match="data index is missing"):
        reopen(folder)


def test_a_finished_run_is_refused(capsys, made):
    folder = made()
    record_end(folder, "FINISHED", exit_code=0)
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
    write_json(folder.status / "0.json", {**STATUS, "pid": pid, "started": process_start(pid), "stage": "step"})
    assert f"is still running: its process {pid} has not ended" in refused(capsys, folder.path)


def test_a_fork_wants_a_whole_checkpoint(capsys, made):
    folder = made()
    assert "has no checkpoint to start from" in refused(capsys, folder.path, fork=True)
    (folder.checkpoints / "step-00000007.safetensors").write_bytes(b"torn")
    write_json(folder.checkpoints / "step-00000007.json", {"step": 7, "sha256": "0" * 64})
    assert [found.step for found in checkpoints.newest_first(folder.checkpoints)] == [7]
    assert "has no checkpoint to start from" in refused(capsys, folder.path, fork=True)


def test_an_orphan_is_closed_once_and_a_living_run_is_not(made, tmp_path, capsys):
    folder, other, ended = made(), made(name="b"), made(name="c")
    ownership.claim(ended)
    record_end(ended, "FAILED", exit_code=1)
    ownership.claim(other)
    ownership.claim(folder)
    content = json.loads(folder.launcher.read_text())
    write_json(folder.launcher, {**content, "started": 1})
    for _ in range(2):
        orphans.close(tmp_path / "runs")
    assert capsys.readouterr().out == f"mvit: the launcher of {folder.path} died; marked KILLED\n"
    assert json.loads(folder.end.read_text())["status"] == "KILLED"
    assert json.loads(folder.error.read_text())["kind"] == "killed"
    assert not other.end.exists()


def test_an_end_that_is_recorded_in_launcher_json_counts_as_one(made, monkeypatch):
    """On a full disk end.json cannot be written; the launcher may be busy with another run by now."""

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    folder, other = made(), made(name="b")
    for run, host in ((folder, socket.gethostname()), (other, "elsewhere")):
        ownership.claim(run)
        parent = os.getppid()
        content = {**json.loads(run.launcher.read_text()), "pid": parent, "started": process_start(parent)}
        run.launcher.write_text(json.dumps({**content, "host": host}))
        assert ownership.alive(run) is not None
        with monkeypatch.context() as patched:
            patched.setattr(ending, "write_json", full)
            record_end(run, "FINISHED", exit_code=0)
        assert not run.end.exists()
        assert ownership.alive(run) is None
        with pytest.raises(RunDirError, match="is FINISHED"):
            ownership.claim(run)


def test_a_torn_end_json_is_no_end(made, tmp_path):
    folder = made()
    ownership.claim(folder)
    write_json(folder.launcher, {**json.loads(folder.launcher.read_text()), "started": 1})
    folder.end.write_text("{")
    orphans.close(tmp_path / "runs")
    assert json.loads(folder.end.read_text())["status"] == "KILLED"


def test_an_orphan_whose_workers_came_to_the_end_is_finished(made, tmp_path):
    folder = made()
    me = {"host": socket.gethostname(), "boot": launcher.boot(), "pid": 1, "started": 1, "time": 0.0}
    write_json(folder.launcher, me)
    write_json(folder.result, {"metrics": {}})
    write_json(folder.status / "0.json", STATUS)
    orphans.close(tmp_path / "runs")
    assert json.loads(folder.end.read_text())["status"] == "FINISHED"


@pytest.fixture
def made_sweep(made):
    """A sweep of three trials, of which the second one is finished."""

    def make():
        trials = [made(name=f"sweep/{number}-x") for number in range(3)]
        folder = RunDir(trials[0].path.parent)
        frozen = [TrialFrozen(trial=n, folder=trial.path.name, overrides=()) for n, trial in enumerate(trials)]
        Ledger(folder.path).append(SweepRequest(argv=(), overrides=(), sweep=SWEEP, slots=("",)), *frozen)
        record_end(trials[1], "FINISHED", exit_code=0)
        return folder, trials

    return make


def test_a_folder_above_runs_is_no_sweep(capsys, made):
    trial = made(name="others/trial-a")
    assert "holds runs but is not a sweep; name one of them, such as trial-a" in refused(capsys, trial.path.parent)


def test_a_sweep_that_still_runs_is_refused(capsys, made_sweep, monkeypatch):
    monkeypatch.setattr(sweep_resume, "LEAVE_S", 0.2)
    folder, trials = made_sweep()
    ownership.claim(trials[0])
    record_end(trials[0], "FINISHED", exit_code=0)
    assert "is still running" in refused(capsys, folder.path)
    assert "fork one of its trials" in refused(capsys, folder.path, fork=True)


def test_the_trials_of_a_sweep_that_are_not_finished_are_run(capsys, made_sweep, stand_ins):
    folder, trials = made_sweep()
    record_end(trials[2], "FAILED", exit_code=1)
    assert main(["resume", str(folder.path)]) == 0
    assert [run.folder for run in stand_ins.started] == [trials[0], trials[2]]
    assert "mvit: sweep FINISHED, " in capsys.readouterr().out
    assert sweep_status(folder.path) == "FINISHED"


def test_a_trial_that_cannot_be_opened_leaves_the_others_their_turn(capsys, made_sweep, stand_ins):
    folder, trials = made_sweep()
    trials[0].run.write_text("{torn")
    assert main(["resume", str(folder.path)]) == 2
    assert [run.folder for run in stand_ins.started] == [trials[2]]
    out, err = capsys.readouterr()
    assert f"{trials[0].path} is not a run folder" in err
    assert "1 not started" in out


@pytest.mark.parametrize(
    ("trials", "status"),
    [
        (["FINISHED", "FINISHED"], "FINISHED"),
        (["FROZEN", "FROZEN"], "FROZEN"),
        (["FINISHED", "FROZEN"], "KILLED"),
        (["FINISHED", "FAILED"], "FAILED"),
        (["FAILED", "KILLED"], "KILLED"),
        (["FAILED", "FROZEN"], "KILLED"),
        (["PAUSED", "FINISHED"], "PAUSED"),
        (["RUNNING", "FAILED"], "RUNNING"),
    ],
)
def test_the_status_of_a_sweep_follows_from_those_of_its_trials(trials, status):
    assert status_of_trials(trials) == status


def test_without_a_whole_checkpoint_nothing_is_begun(capsys, made):
    folder = made()
    (folder.checkpoints / "step-00000003.safetensors").write_bytes(b"x")
    (folder.checkpoints / "step-00000003.json").write_text("[1]")
    assert "none of its checkpoints is whole; remove them to start over" in refused(capsys, folder.path)
    assert not folder.launcher.exists()


@pytest.mark.parametrize("end", ["FINISHED", {"x": 1}, 4, None])
@pytest.mark.parametrize("lacks", [None, "pid", "started"])
def test_a_launcher_json_of_another_shape_stops_no_launch(made, tmp_path, end, lacks):
    folder = made()
    said = {"host": socket.gethostname(), "boot": launcher.boot(), "pid": 1, "started": 1, "end": end}
    said.pop(lacks or "", None)
    write_json(folder.launcher, said)
    orphans.close(tmp_path / "runs")
    assert folder.end.exists() == (lacks is None)


def test_statuses_of_another_shape_are_none(made):
    folder = made()
    changes = [{"rank": "x"}, {"time": "x"}, {"pid": None}, {"error": "x"}, {"stage": "lunch"}, {"host": None}, {}]
    for rank, change in enumerate(changes):
        write_json(folder.status / f"{rank}.json", {**STATUS, "rank": rank, **change})
    assert [status.rank for status in read_statuses(folder)] == [6]


def test_a_run_of_another_host_is_running_until_that_host_says_otherwise(made, tmp_path):
    """Nobody is called dead whose host is not this one."""
    folder = made()
    remote = {**STATUS, "host": "elsewhere", "pid": 2**22 - 1, "stage": "step"}
    write_json(folder.launcher, {"host": "elsewhere", "boot": "x", "pid": 2**22 - 1, "started": 1})
    write_json(folder.status / "1.json", {**remote, "rank": 1})
    assert run_status(folder) == "RUNNING"
    orphans.close(tmp_path / "runs")
    assert not folder.end.exists()
    command = Command(("true",), {}, logs=folder.attempt_logs(1), workers=2, port=None)
    write_json(folder.status / "0.json", {**STATUS, "pid": os.getpid(), "started": process_start(os.getpid())})
    assert verdict.disappeared(read_statuses(folder), command) is None
    write_json(folder.status / "0.json", {**STATUS, "stage": "step"})
    gone = verdict.disappeared(read_statuses(folder), command)
    assert gone is not None
    assert gone.rank == 0


def test_the_status_of_a_run_follows_from_its_folder(made):
    folder = made()
    assert run_status(folder) == "FROZEN"
    ownership.claim(folder)
    assert run_status(folder) == "RUNNING"
    for status in ("PAUSED", "FAILED", "KILLED", "FINISHED"):
        record_end(folder, status, exit_code=0)
        assert run_status(folder) == status
    folder.end.unlink()
    dead = {**json.loads(folder.launcher.read_text()), "started": 1}
    write_json(folder.launcher, dead)
    assert run_status(folder) == "KILLED"
    write_json(folder.result, {})
    assert run_status(folder) == "KILLED", "no worker says that it is done"
    write_json(folder.status / "0.json", STATUS)
    assert run_status(folder) == "FINISHED"
    error = {"type": "ValueError", "message": "x", "where": None, "stage": "step", "time": 1.0}
    write_json(folder.status / "0.json", {**STATUS, "stage": "failed", "error": error})
    assert run_status(folder) == "FAILED"


def test_a_run_of_another_host_is_not_taken_over_however_long_it_is_silent(capsys, made):
    folder = made()
    write_json(folder.launcher, {"host": "elsewhere", "boot": "x", "pid": 1, "started": 1})
    err = refused(capsys, folder.path)
    assert f"is still running: its launcher is on elsewhere; if that host is gone, remove {folder.launcher}" in err
    folder.launcher.unlink()
    ownership.claim(folder)


def test_a_run_that_finishes_while_another_process_reopens_it_stays_finished(made):
    folder = made()
    record_end(folder, "FINISHED", exit_code=0)
    with pytest.raises(RunDirError, match="is FINISHED"):
        ownership.claim(folder)
    assert run_status(folder) == "FINISHED"


def test_torn_lines_of_a_ledger_cost_those_lines_alone(made_sweep, stand_ins):
    folder, trials = made_sweep()
    requested, *frozen = folder.ledger.read_text().splitlines(keepends=True)
    folder.ledger.write_text("".join([requested, frozen[0][:20] + "\n", frozen[1], frozen[2][:30]]))
    assert trials_of(folder.path) == trials
    assert main(["resume", str(folder.path)]) == 0
    assert [run.folder for run in stand_ins.started] == [trials[0], trials[2]]
    ended = [event.trial for event in read_events(folder.path) if isinstance(event, TrialEnded)]
    assert ended == [0, 2]


def test_a_trial_whose_data_is_gone_does_not_keep_the_others(capsys, made_sweep, made, stand_ins):
    folder, trials = made_sweep()
    content = json.loads(trials[0].run.read_text())
    content.pop("sha256")
    content["plan"]["dataset"]["fingerprint"] = "other"
    write_json(trials[0].run, {**content, "sha256": json_digest(content)})
    assert main(["resume", str(folder.path)]) == 2
    assert [run.folder for run in stand_ins.started] == [trials[2]]
    assert f"{trials[0].path.name}: " in capsys.readouterr().err


def test_a_sweep_is_not_executed_as_a_run(capsys, made_sweep):
    folder, _ = made_sweep()
    assert main(["run", str(folder.path)]) == 2
    assert f"is a sweep; use: python -m mvit resume {folder.path}" in capsys.readouterr().err
