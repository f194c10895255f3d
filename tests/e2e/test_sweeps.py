"""Sweeps: every trial is composed, checked and frozen before the first one starts."""

import json
import shutil
import sys
import time

import pytest

import launch as launch_script
from mvit.config import TrainRun
from mvit.parent import signals
from mvit.parent.request import compose, keys
from mvit.parent.sweep import sweep
from mvit.rundir.ending import Outcome, record_end
from mvit.rundir.frozen import read_run
from mvit.rundir.paths import RunDir
from mvit.rundir.state import run_status, sweep_status, trials_of
from tests.conftest import CHECKOUT, Launched


@pytest.fixture
def launch(tmp_path_factory, monkeypatch, capfd):
    """launch.py in this process, without an MLflow."""

    def start(*overrides):
        room = tmp_path_factory.mktemp("launch")
        monkeypatch.chdir(room)
        monkeypatch.setattr(sys, "argv", ["launch.py", f"runs_dir={room}/runs", "tracking=none", *overrides])
        code = launch_script.main()
        out, err = capfd.readouterr()
        return Launched(code, out, err, room / "runs")

    return start


@pytest.fixture
def follow(monkeypatch):
    """Stands for the execution of a trial: `ends` are the outcomes, in order."""

    def install(*ends):
        followed = []

        def stand_in(run, *, slot):
            outcome = ends[len(followed)]
            followed.append(run)
            record_end(run.folder, outcome.status, exit_code=outcome.exit_code)
            return outcome

        monkeypatch.setattr(sweep, "follow", stand_in)
        return followed

    return install


FINISHED, KILLED = Outcome("FINISHED", 0), Outcome("KILLED", 143)


def seed_of(config):
    assert isinstance(config, TrainRun)
    return config.seed


def optimizer_of(config):
    assert isinstance(config, TrainRun)
    return config.optimizer


def the_sweep(done):
    (file,) = done.runs.glob("*/*/sweep.json")
    return file.parent


def test_a_mistake_in_one_of_forty_trials_refuses_the_sweep_at_once_and_leaves_nothing(launch):
    batches = ",".join(str(16 if number != 9 else -1) for number in range(1, 21))
    began = time.perf_counter()
    done = launch("-m", f"train.global_batch_size={batches}", "seed=1,2")
    took = time.perf_counter() - began
    print(f"40 trials, one value wrong: refused in {took:.2f} s, {took / 40:.3f} s a trial")
    assert done.code == 2
    assert done.out == ""
    lines = done.err.splitlines()
    assert len(lines) == 2
    for line, number, seed in zip(lines, (17, 18), (1, 2), strict=True):
        assert line.startswith(f"mvit: trial {number} of 40 (runs_dir=")
        assert f"train.global_batch_size=-1 seed={seed}): train.global_batch_size: -1 " in line
    assert list(done.runs.parent.iterdir()) == []


def test_every_trial_is_frozen_before_the_first_one_starts(launch, monkeypatch):
    seen = []

    def follow(run, *, slot):
        folder = run.folder.path.parent
        seen.append([(trial.path.name, seed_of(read_run(trial).config)) for trial in trials_of(folder)])
        record_end(run.folder, "FINISHED", exit_code=0)
        return FINISHED

    monkeypatch.setattr(sweep, "follow", follow)
    done = launch("-m", "seed=1,2,3")
    assert done.code == 0, done.err
    assert [seed for _, seed in seen[0]] == [1, 2, 3]
    assert seen[0] == seen[1] == seen[2]
    assert sweep_status(the_sweep(done)) == "FINISHED"
    asked = json.loads(RunDir(the_sweep(done)).sweep.read_text())["trials"]
    assert [trial["overrides"][-1] for trial in asked] == ["seed=1", "seed=2", "seed=3"]


def test_editing_every_yaml_while_a_sweep_runs_changes_nothing_in_it(launch, monkeypatch, tmp_path):
    """On a copy of conf/ that takes the place of the checkout's, and has a value of its own."""
    conf = shutil.copytree(CHECKOUT / "conf", tmp_path / "conf")
    adamw = conf / "optimizer" / "adamw.yaml"
    adamw.write_text(adamw.read_text().replace("weight_decay:", "weight_decay: 0.125 #"))
    for module in (launch_script, compose, keys):
        monkeypatch.setattr(module, "CONF", conf)
    executed = []

    def follow(run, *, slot):
        for file in conf.rglob("*.yaml"):
            file.write_text("nothing: of this\n")
        executed.append(optimizer_of(read_run(run.folder).config))
        record_end(run.folder, "FINISHED", exit_code=0)
        return FINISHED

    monkeypatch.setattr(sweep, "follow", follow)
    assert launch("-m", "optimizer.lr=1e-3,2e-3,3e-3").code == 0
    assert [(optimizer.lr, optimizer.weight_decay) for optimizer in executed] == [
        (1e-3, 0.125),
        (2e-3, 0.125),
        (3e-3, 0.125),
    ]
    assert launch("-m", "optimizer.lr=1e-3,2e-3").code == 2  # what was edited is what a launch reads


def test_a_signal_ends_a_sweep_and_not_one_trial_of_it(launch, follow):
    followed = follow(KILLED)
    done = launch("-m", "model=xx_small,x_small", "seed=1,2")
    assert done.code == 143
    assert len(followed) == 1
    folder = the_sweep(done)
    assert [run_status(trial) for trial in trials_of(folder)] == ["KILLED", "FROZEN", "FROZEN", "FROZEN"]
    assert f"mvit: sweep KILLED, {folder}: 3 not started, 1 KILLED" in done.out.replace("runs/", f"{done.runs}/")
    assert "mvit: continue with: python -m mvit resume " in done.out


def test_a_signal_between_two_trials_ends_the_sweep_in_order(launch, monkeypatch):
    def follow(run, *, slot):
        record_end(run.folder, "FINISHED", exit_code=0)
        raise signals.Interrupted(15)

    monkeypatch.setattr(sweep, "follow", follow)
    done = launch("-m", "seed=1,2")
    assert done.code == 143
    assert json.loads(RunDir(the_sweep(done)).end.read_text())["status"] == "KILLED"


def test_a_trial_that_fails_leaves_the_others_their_turn(launch, follow):
    followed = follow(FINISHED, Outcome("FAILED", 1), FINISHED)
    done = launch("-m", "seed=1,2,3")
    assert (done.code, len(followed)) == (1, 3)
    assert sweep_status(the_sweep(done)) == "FAILED"


def test_a_dry_run_of_a_sweep_shows_every_plan_and_names_no_folder(launch):
    done = launch("-m", "seed=1,2", "dry_run=true")
    assert done.code == 0
    assert done.out.count("  devices") == 2
    assert "mvit: trial 2 of 2: " in done.out
    assert "RUN_DIR" in done.out
    assert not done.runs.exists()


def test_a_sweep_can_be_frozen_and_resumed_later(launch, follow):
    done = launch("-m", "seed=1,2", "freeze=true")
    assert done.code == 0
    folder = the_sweep(done)
    assert done.out.splitlines()[-1] == f"runs/{folder.relative_to(done.runs)}"
    assert sweep_status(folder) == "FROZEN"
