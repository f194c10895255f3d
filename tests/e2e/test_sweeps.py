"""Sweeps: every trial is composed, checked and frozen before the first one starts."""

import os
import shutil
import signal
import sys
import threading
import time
from typing import Any

import pytest

from mvit import console
from mvit.cli import hydra_entry
from mvit.cli.main import main
from mvit.config import TrainRun
from mvit.files import lock
from mvit.parent.request import compose, keys
from mvit.parent.sweep import execution
from mvit.rundir.frozen import read_run
from mvit.rundir.ledger import TrialEnded, TrialStarted, read_events, recorded_request
from mvit.rundir.state import run_status, sweep_status
from mvit.rundir.sweep import read_trials, trials_of
from mvit.sweep_config import HalvingPruner
from tests.conftest import CHECKOUT
from tests.stand_ins import FAILED, FINISHED


@pytest.fixture
def launch(launch_here):
    return launch_here


def seed_of(config):
    assert isinstance(config, TrainRun)
    return config.seed


def optimizer_of(config):
    assert isinstance(config, TrainRun)
    return config.optimizer


def the_sweep(done):
    (file,) = done.runs.glob("*/*/ledger.jsonl")
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


PRUNED = ("seed=1,2", "sweep/pruner=halving")
RATE = "optimizer.lr=tag(log,interval(1e-4,1e-2))"


@pytest.mark.parametrize(
    ("typed", "line"),
    [
        (["seed="], "seed: '' must be a valid integer"),
        (["seed=range(3,3)"], "seed: 'range(3,3)' is not an axis: its range has no values"),
        ([RATE], "optimizer.lr: is an interval, and a grid has lists"),
        (["sweep=search"], "sweep: 'search' has no axes"),
        (["sweep=search", RATE, "sweep.sampler=grid"], "sweep.sampler: 'grid' takes lists, and optimizer.lr is an"),
        (["sweep=search", RATE, "sweep.start_from=[nowhere]"], "sweep.start_from: 'nowhere' is not the folder of a"),
        (
            ["sweep=search", RATE, "sweep.sampler=cma_es", "sweep.objectives=[val/acc1,params]"],
            "sweep.sampler: 'cma_es' is for one objective",
        ),
        (["seed=1,2", "sweep.objectives=[val/acc7]"], "sweep.objectives.0: 'val/acc7' "),
        (["seed=1,2", "sweep.objectives=[val/acc1,val/acc1]"], "sweep.objectives: ['val/acc1', 'val/acc1'] names an"),
        (["seed=1,2", "sweep.objectives=[val/ema_acc1]"], "sweep.objectives: 'val/ema_acc1' is not logged: no average"),
        ([*PRUNED, "train.max_steps=5"], "sweep.pruner: 'halving' cannot prune runs that end after train.max_steps"),
        ([*PRUNED, "train.epochs=1"], "sweep.pruner.first_rung: 2 is not before the last of 1 epochs"),
        (["sweep/pruner=halving", "train.epochs=4,8"], "sweep.pruner: 'halving' compares trials after as many epochs,"),
        ([*PRUNED, "train.eval_every_epochs=5"], "sweep.pruner: 'halving' compares trials after epoch 2, which is not"),
        (["seed=1,2", "sweep.slots=9"], "sweep.slots: 9 "),
        (["seed=1,2", "topology=cpu_2", "sweep.slots=[[0]]"], "sweep.slots: "),
        (["sweep.trials=@nowhere.csv"], "sweep.trials: '@nowhere.csv' cannot be read: No such file"),
    ],
)
def test_a_wrong_request_is_one_line_before_anything_is_made(launch, typed, line):
    done = launch("-m", *typed)
    assert done.code == 2
    assert done.err.startswith(f"mvit: {line}"), done.err
    assert done.err.count("\n") == 1
    assert done.out == ""
    assert not done.runs.exists()


@pytest.mark.parametrize(
    ("rows", "line"),
    [
        ("seed,optimizer.lrr\n1,2\n3,4\n", "optimizer.lrr: unknown key; did you mean optimizer.lr?"),
        ("seed,train.epochs\n1,2\n3\n", "is torn: line 3 has 1 values, and the header 2 keys"),
    ],
)
def test_a_wrong_file_of_trials_is_one_line(launch, tmp_path, rows, line):
    (tmp_path / "trials.csv").write_text(rows)
    done = launch("-m", f"sweep.trials=@{tmp_path}/trials.csv")
    assert done.code == 2
    assert line in done.err
    assert done.err.count("\n") == 1


def test_a_grid_that_nobody_can_run_is_refused_before_it_is_planned(launch):
    done = launch("-m", "seed=range(1000)", "train.epochs=range(1,100)")
    assert done.code == 2
    assert done.err.startswith(
        "mvit: sweep: has 99000 trials, more than 10000; list fewer values, or draw some of them"
    )
    assert done.err.count("\n") == 1
    assert list(done.runs.parent.iterdir()) == []


def test_every_trial_is_frozen_before_the_first_one_starts(launch, stand_ins):
    seen = []

    def look(run):
        folder = run.folder.path.parent
        seen.append([(trial.path.name, seed_of(read_run(trial).config)) for trial in trials_of(folder)])

    stand_ins.at_start = look
    done = launch("-m", "seed=1,2,3")
    assert done.code == 0, done.err
    assert [seed for _, seed in seen[0]] == [1, 2, 3]
    assert seen[0] == seen[1] == seen[2]
    assert sweep_status(the_sweep(done)) == "FINISHED"
    assert [trial.overrides[-1] for trial in read_trials(the_sweep(done))] == ["seed=1", "seed=2", "seed=3"]


def test_editing_every_yaml_while_a_sweep_runs_changes_nothing_in_it(launch, stand_ins, monkeypatch, tmp_path):
    """On a copy of conf/ that takes the place of the checkout's, and has a value of its own."""
    conf = shutil.copytree(CHECKOUT / "conf", tmp_path / "conf")
    adamw = conf / "optimizer" / "adamw.yaml"
    adamw.write_text(adamw.read_text().replace("weight_decay:", "weight_decay: 0.125 #"))
    for module in (hydra_entry, compose, keys):
        monkeypatch.setattr(module, "CONF", conf)
    executed = []

    def edit(run):
        for file in conf.rglob("*.yaml"):
            file.write_text("nothing: of this\n")
        executed.append(optimizer_of(read_run(run.folder).config))

    stand_ins.at_start = edit
    assert launch("-m", "optimizer.lr=1e-3,2e-3,3e-3").code == 0
    assert [(optimizer.lr, optimizer.weight_decay) for optimizer in executed] == [
        (1e-3, 0.125),
        (2e-3, 0.125),
        (3e-3, 0.125),
    ]
    assert launch("-m", "optimizer.lr=1e-3,2e-3").code == 2  # what was edited is what a launch reads


def test_a_signal_stops_the_trials_that_run_and_starts_no_other(launch, stand_ins):
    stand_ins.seconds = 30.0
    stand_ins.at_start = lambda run: threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGTERM)).start()
    done = launch("-m", "model=xx_small,x_small", "seed=1,2")
    assert done.code == 143
    assert len(stand_ins.started) == 1
    folder = the_sweep(done)
    assert [run_status(trial) for trial in trials_of(folder)] == ["KILLED", "FROZEN", "FROZEN", "FROZEN"]
    assert f"mvit: sweep KILLED, {folder}: 1 KILLED, 3 not started" in done.out.replace("runs/", f"{done.runs}/")
    assert "mvit: continue with: python -m mvit resume " in done.out


def test_a_trial_that_fails_leaves_the_others_their_turn(launch, stand_ins):
    stand_ins.ends = [FINISHED, FAILED, FINISHED]
    done = launch("-m", "seed=1,2,3")
    assert (done.code, len(stand_ins.started)) == (1, 3)
    assert sweep_status(the_sweep(done)) == "FAILED"


def test_so_many_failures_in_a_row_start_no_other_trial(launch, stand_ins):
    stand_ins.ends = [FAILED, FINISHED, FAILED, FAILED]
    done = launch("-m", "seed=1,2,3,4,5,6", "sweep.max_failures_in_a_row=2")
    assert (done.code, len(stand_ins.started)) == (1, 4)
    first, *causes = done.err.splitlines()
    assert first == "mvit: the sweep is ended: 2 trials in a row failed, the last one with nan: as told"
    assert causes == [f"mvit: seed={seed}: failed (rank 0, step, nan): as told" for seed in (1, 3, 4)]


@pytest.mark.parametrize("kind", ["disk", "config"])
def test_a_failure_that_every_trial_would_meet_starts_no_other(launch, stand_ins, kind):
    stand_ins.ends = [(f"FAILED:{kind}", 1)]
    done = launch("-m", "seed=1,2,3")
    assert (done.code, len(stand_ins.started)) == (1, 1)
    assert f"the sweep is ended: a trial failed as all others would ({kind}: as told)" in done.err


def test_with_fail_fast_the_first_failure_stops_what_runs(launch, stand_ins):
    stand_ins.ends = [FAILED]
    stand_ins.at_start = lambda run: setattr(stand_ins, "seconds", 30.0 if len(stand_ins.started) > 1 else 0.3)
    done = launch("-m", "seed=1,2,3", "sweep.slots=2", "sweep.fail_fast=true")
    assert done.code == 1
    assert [run_status(trial) for trial in trials_of(the_sweep(done))] == ["FAILED", "KILLED", "FROZEN"]
    assert "sweep.fail_fast is set" in done.err


def test_a_sweep_ends_once_its_time_is_over(launch, stand_ins):
    stand_ins.seconds = 30.0
    done = launch("-m", "seed=1,2", "sweep.max_hours=0.0002")
    assert done.code == 75
    assert [run_status(trial) for trial in trials_of(the_sweep(done))] == ["KILLED", "FROZEN"]
    assert "the time limit is reached (sweep.max_hours=0.0002)" in done.err


def test_resume_runs_what_may_go_well_and_with_failed_what_did_not(launch, stand_ins):
    stand_ins.ends = [FINISHED, FAILED, ("FAILED:killed", 1), FINISHED]
    done = launch("-m", "seed=1,2,3,4")
    folder = the_sweep(done)
    trials = trials_of(folder)
    assert main(["resume", str(folder)]) == 1  # the one that is left
    assert [run.folder for run in stand_ins.started[4:]] == [trials[2]]
    assert main(["resume", str(folder), "--failed"]) == 0
    assert [run.folder for run in stand_ins.started[5:]] == [trials[1]]
    assert sweep_status(folder) == "FINISHED"


def test_trials_run_side_by_side_each_in_a_free_slot(launch, stand_ins):
    first, *_, last = sorted(os.sched_getaffinity(0))
    stand_ins.seconds = 0.5
    done = launch("-m", "seed=1,2,3,4", f"sweep.slots=[[{first}],[{last}]]")
    assert done.code == 0, done.err
    events = list(read_events(the_sweep(done)))
    assert [event.event for event in events][:7] == ["requested", *4 * ["frozen"], "started", "started"]
    running, most = {}, 0  # slots, by their trials
    for event in events:
        if isinstance(event, TrialStarted):
            assert event.slot not in running.values()
            running[event.trial] = event.slot
        elif isinstance(event, TrialEnded):
            del running[event.trial]
        most = max(most, len(running))
    assert most == 2
    assert sorted(stand_ins.slots) == 2 * [f"cores={first}"] + 2 * [f"cores={last}"]
    assert {read_run(trial).plan.cores for trial in trials_of(the_sweep(done))} == {1}


def test_a_trial_that_stands_still_is_killed_and_its_slot_is_free_again(launch, stand_ins, monkeypatch):
    monkeypatch.setattr(execution, "STOPPED_S", 0.5)
    stand_ins.seconds = 30.0

    def stop(run):
        stand_ins.seconds = 0.0

    stand_ins.at_start = stop
    started = execution.subprocess.Popen

    def popen(command, **more):
        process = started(command, **more)
        if len(stand_ins.started) == 1:
            process.send_signal(signal.SIGSTOP)
        return process

    monkeypatch.setattr(execution.subprocess, "Popen", popen)
    done = launch("-m", "seed=1,2")
    assert done.code == 1
    assert [run_status(trial) for trial in trials_of(the_sweep(done))] == ["KILLED", "FINISHED"]


def test_a_dry_run_of_a_sweep_shows_every_plan_and_names_no_folder(launch):
    done = launch("-m", "seed=1,2", "dry_run=true")
    assert done.code == 0
    assert done.out.count("  devices") == 2
    assert "mvit: trial 2 of 2: " in done.out
    assert "RUN_DIR" in done.out
    assert not done.runs.exists()


def test_a_sweep_can_be_frozen_and_resumed_later(launch):
    done = launch("-m", "seed=1,2", "freeze=true")
    assert done.code == 0
    folder = the_sweep(done)
    assert done.out.splitlines()[-1] == f"runs/{folder.relative_to(done.runs)}"
    assert sweep_status(folder) == "FROZEN"


FIRST = ("sweep.pruner.first_rung=1", "sweep.pruner.finalists=1")


def by_lr(config, epoch):
    """The best learning rate is the largest one, and every epoch helps."""
    return 100 * config.optimizer.lr * epoch


def told(done, kind) -> list[Any]:
    return [event for event in read_events(the_sweep(done)) if event.event == kind]


def test_halving_pauses_at_the_rungs_and_promotes_the_best(launch, stand_ins):
    stand_ins.accuracy = by_lr
    rates = ",".join(f"{number}e-3" for number in (5, 2, 9, 1, 7, 3, 8, 4, 6))
    done = launch("-m", f"optimizer.lr={rates}", "train.epochs=9", "sweep/pruner=halving", *FIRST)
    assert done.code == 0, done.err
    ended = told(done, "ended")
    assert [event.trial for event in ended] == [2]  # the best one alone is run to its end
    assert ended[0].values == {"best/val_acc1": pytest.approx(8.1)}
    epochs = sum((until or 9) for until in stand_ins.until)
    assert epochs < 9 * 9 / 2
    assert {(event.trial, event.epoch) for event in told(done, "paused")} >= {(number, 1) for number in range(9)}
    assert len(told(done, "pruned")) == 8
    assert "mvit: lr=0.009: FINISHED, best 8.10 %" in done.out
    assert f"mvit: sweep FINISHED, {console.shown(the_sweep(done))}: 1 FINISHED, 8 pruned" in done.out
    assert sweep_status(the_sweep(done)) == "FINISHED"


def test_a_sweep_that_was_stopped_goes_on_with_its_rungs(launch, stand_ins):
    stand_ins.accuracy = by_lr
    stand_ins.at_start = lambda run: (
        threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGTERM)).start() if len(stand_ins.started) == 4 else None
    )
    done = launch("-m", "optimizer.lr=1e-3,2e-3,3e-3,4e-3,5e-3,6e-3", "train.epochs=3", "sweep/pruner=halving", *FIRST)
    assert done.code == 143
    stand_ins.at_start = lambda run: None
    folder = the_sweep(done)
    assert main(["resume", str(folder)]) == 0
    assert sweep_status(folder) == "FINISHED"
    paused = [(event.trial, event.epoch) for event in told(done, "paused")]
    assert len(set(paused)) == len(paused)  # none comes to a rung a second time
    finished = [trial for trial in trials_of(folder) if run_status(trial) == "FINISHED"]
    assert trials_of(folder)[5] in finished


def test_a_search_draws_its_trials_one_by_one_and_goes_on_after_a_stop(launch, stand_ins):
    stand_ins.accuracy = by_lr
    stand_ins.at_start = lambda run: (
        threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGTERM)).start() if len(stand_ins.started) == 5 else None
    )
    typed = ("sweep=search", "sweep.max_trials=9", "train.epochs=2", "optimizer.lr=tag(log,interval(1e-4,1e-2))")
    done = launch("-m", *typed, "model=xx_small,x_small")
    assert done.code == 143
    folder = the_sweep(done)
    drawn = [trial.overrides for trial in read_trials(folder)]
    assert 4 <= len(drawn) <= 6
    stand_ins.at_start = lambda run: None
    assert main(["resume", str(folder)]) == 0
    trials = read_trials(folder)
    assert [trial.trial for trial in trials] == list(range(9))
    assert [trial.overrides for trial in trials][: len(drawn)] == drawn
    assert len({trial.config for trial in trials}) == 9
    assert main(["resume", str(folder), "sweep.max_trials=11"]) == 0
    assert len(read_trials(folder)) == 11


def test_more_values_of_an_axis_are_run_and_no_other_trial_is_run_again(launch, stand_ins):
    done = launch("-m", "optimizer.lr=1e-3,2e-3", "seed=1,2")
    folder = the_sweep(done)
    assert main(["resume", str(folder), "optimizer.lr=2e-3,3e-3"]) == 0
    new = [read_run(run.folder).config for run in stand_ins.started[4:]]
    assert [(optimizer_of(config).lr, seed_of(config)) for config in new] == [(3e-3, 1), (3e-3, 2)]
    assert [trial.trial for trial in read_trials(folder)] == list(range(6))
    assert main(["resume", str(folder), "optimizer.lr=1e-3,3e-3"]) == 0
    assert len(stand_ins.started) == 6
    assert main(["resume", str(folder), "optimizer.lr=4e-3"]) == 0
    assert [optimizer_of(read_run(run.folder).config).lr for run in stand_ins.started[6:]] == [4e-3, 4e-3]


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("train.epochs=7", "train.epochs: '7' is not an axis of the sweep"),
        ("dry_run=true", "dry_run: 'true' is not an axis of the sweep"),
        ("sweep.slots=2", "sweep.slots: '2' stays what the sweep was started with"),
        ("optimizer.lr=interval(1,2)", "optimizer.lr: is an interval"),
        ("foo", "foo: has no value"),
        ("optimizer.lr=[", "optimizer.lr: "),
    ],
)
def test_what_cannot_be_added_to_a_sweep_is_one_line(launch, stand_ins, capfd, typed, said):
    folder = the_sweep(launch("-m", "optimizer.lr=1e-3,2e-3"))
    assert main(["resume", str(folder), typed]) == 2
    err = capfd.readouterr().err
    assert err.startswith(f"mvit: {said}")
    assert err.count("\n") == 1
    assert len(read_trials(folder)) == 2


@pytest.mark.parametrize("typed", ["optimizer.lr=3e-3", "optimizer.lr=1e-3,3e-3", "optimizer.lr=interval(1,2)"])
def test_nothing_is_added_to_an_interval_which_stays_as_it_is(launch, stand_ins, capfd, typed):
    done = launch("-m", "sweep=search", "sweep.max_trials=1", RATE)
    ledger = the_sweep(done) / "ledger.jsonl"
    before = ledger.read_bytes()
    assert main(["resume", str(the_sweep(done)), typed]) == 2
    err = capfd.readouterr().err
    assert err.startswith("mvit: optimizer.lr: ")
    assert "cannot be added to an interval, 0.0001 to 0.01; draw more of it with sweep.max_trials=..., or" in err
    assert err.count("\n") == 1
    assert ledger.read_bytes() == before
    assert main(["resume", str(the_sweep(done)), "sweep.max_trials=2"]) == 0


def test_a_search_goes_on_from_any_directory_without_the_sweeps_that_it_started_from(
    launch, stand_ins, tmp_path, monkeypatch
):
    """Those were named by an experiment, relative to where it was launched."""
    stand_ins.accuracy = by_lr
    earlier = launch("-m", "sweep=search", "sweep.max_trials=1", RATE)
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment/again.yaml").write_text(
        "# @package _global_\ndefaults: [override /sweep: search]\n"
        f"sweep: {{start_from: [../{the_sweep(earlier).relative_to(earlier.runs.parent.parent)}], max_trials: 1}}\n"
    )
    done = launch("-m", "--config-dir", str(tmp_path), "experiment=again", RATE)
    assert done.code == 0, done.err
    assert "mvit: 1 trials of earlier sweeps are known" in done.out
    monkeypatch.chdir("/")
    assert main(["resume", str(the_sweep(done)), "sweep.max_trials=2"]) == 0
    assert len(read_trials(the_sweep(done))) == 2


def test_one_setting_of_a_search_is_changed_the_others_stay_and_all_are_judged_as_in_a_new_one(
    launch, stand_ins, capfd
):
    stand_ins.accuracy = by_lr
    pruner = ("sweep/pruner=aggressive", "sweep.pruner.first_rung=4")
    folder = the_sweep(launch("-m", "sweep=search", "sweep.max_trials=1", RATE, "train.epochs=9", *pruner))
    before = (folder / "ledger.jsonl").read_bytes()
    capfd.readouterr()
    for typed, line in (
        ("sweep.pruner.first_rung=50", "sweep.pruner.first_rung: 50 is not before the last of 9 epochs; "),
        ("sweep.objectives=[val/ema_acc1]", "sweep.objectives: 'val/ema_acc1' is not logged: no average is kept; "),
        ("sweep.pruner.kind=median", "sweep.pruner.kind: 'median' stays what the sweep was started with; "),
        ("sweep.pruner.every_epochs=2", "sweep.pruner.every_epochs: not used by sweep.pruner.kind="),
        ("+sweep.seed=1", "+sweep.seed=1: keys can be added only at launch; use sweep.seed=1\n"),
    ):
        assert main(["resume", str(folder), typed]) == 2
        err = capfd.readouterr().err
        assert err.startswith(f"mvit: {line}"), err
        assert err.count("\n") == 1
    assert (folder / "ledger.jsonl").read_bytes() == before
    assert main(["resume", str(folder), "sweep.pruner.finalists=2"]) == 0
    changed = recorded_request(folder)
    assert changed
    assert changed.sweep.pruner == HalvingPruner(kind="halving", first_rung=4, factor=4, finalists=2)


def test_without_the_line_of_what_was_asked_for_trials_are_finished_and_none_is_added(launch, stand_ins, capfd):
    folder = the_sweep(launch("-m", "seed=1,2", "freeze=true"))
    ledger = folder / "ledger.jsonl"
    ledger.write_text(ledger.read_text().partition("\n")[2])
    assert main(["resume", str(folder), "seed=3,4"]) == 2
    assert "no longer says what was asked for" in capfd.readouterr().err
    assert main(["resume", str(folder)]) == 0
    assert len(stand_ins.started) == 2


def test_a_sweep_is_resumed_once_at_a_time(launch, stand_ins, capfd):
    folder = the_sweep(launch("-m", "seed=1,2", "freeze=true"))
    with lock(folder / "ledger.jsonl"):
        assert main(["resume", str(folder), "seed=3"]) == 2
    assert capfd.readouterr().err == f"mvit: {folder} is being resumed by another process\n"
    assert len(list(folder.glob("*/run.json"))) == 2
    assert main(["resume", str(folder)]) == 0


def test_limits_of_a_resumed_sweep_reach_its_trials(launch, stand_ins):
    folder = the_sweep(launch("-m", "seed=1,2", "freeze=true"))
    assert main(["resume", str(folder), "limits.step_s=77"]) == 0
    assert stand_ins.overrides == [["limits.step_s=77"]] * 2


def test_an_end_of_an_earlier_turn_is_not_taken_for_that_of_this_one(launch, stand_ins, monkeypatch):
    stand_ins.accuracy = by_lr
    made = stand_ins.__call__

    def command(run, **more):
        """A trial that is promoted dies before it can claim its folder."""
        goes_on = run.folder.end.exists()
        command = made(run, **more)
        return [sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"] if goes_on else command

    monkeypatch.setattr(execution, "command_of", command)
    done = launch("-m", "optimizer.lr=1e-3,2e-3,3e-3", "train.epochs=3", "sweep/pruner=halving", *FIRST)
    assert done.code == 1
    ended = told(done, "ended")[0]
    assert (ended.trial, ended.status, ended.kind) == (2, "KILLED", "killed")


def test_a_base_that_has_changed_is_refused_with_what_differs(launch, stand_ins, monkeypatch, tmp_path, capfd):
    done = launch("-m", "seed=1,2")
    conf = shutil.copytree(CHECKOUT / "conf", tmp_path / "conf")
    adamw = conf / "optimizer" / "adamw.yaml"
    adamw.write_text(adamw.read_text().replace("weight_decay:", "weight_decay: 0.125 #"))
    for module in (hydra_entry, compose, keys):
        monkeypatch.setattr(module, "CONF", conf)
    assert main(["resume", str(the_sweep(done)), "seed=3,4"]) == 2
    err = capfd.readouterr().err
    assert err.startswith("mvit: optimizer.weight_decay: 0.125 differs from what the run was made with, ")
    assert len(read_trials(the_sweep(done))) == 2


def test_the_same_configuration_is_run_once_unless_it_is_asked_for_again(launch, stand_ins):
    done = launch("-m", "optimizer.lr=1e-3,0.001,2e-3")
    assert len(stand_ins.started) == 2
    assert "mvit: skipped 1 duplicate trials" in done.out
    assert "skipped 1 duplicate" in launch("-m", "optimizer.lr=1e-3,0.001", "sweep.preview=true").out
    assert launch("-m", "optimizer.lr=1e-3,0.001,2e-3", "sweep.again=true").code == 0
    assert len(stand_ins.started) == 5


def test_the_trials_of_a_file(launch, stand_ins, tmp_path):
    file = tmp_path / "trials.csv"
    file.write_text("optimizer.lr,model\n1e-3,x_small\n2e-3,\n")
    done = launch("-m", f"sweep.trials=@{file}", "seed=7")
    assert done.code == 0, done.err
    assert [(optimizer_of(run.config).lr, run.config.model.name) for run in stand_ins.started] == [
        (1e-3, "x_small"),
        (2e-3, "xx_small"),
    ]
    assert launch("-m", f"sweep.trials=@{file}", "seed=7,8").code == 2
    file.write_text("optimizer.lrr\n1e-3\n")
    done = launch("-m", f"sweep.trials=@{file}")
    assert (done.code, done.err) == (2, "mvit: optimizer.lrr: unknown key; did you mean optimizer.lr?\n")


def test_a_sweep_is_no_trial_of_another_one(launch, stand_ins, tmp_path):
    done = launch("-m", "experiment=seeds,smoke")
    assert (done.code, done.err) == (2, "mvit: experiment: 'seeds' is a sweep of its own; run it alone\n")
    file = tmp_path / "trials.csv"
    file.write_text("experiment\nseeds\n")
    assert launch("-m", f"sweep.trials=@{file}").err == done.err


def test_a_preview_names_the_trials_and_makes_nothing(launch, stand_ins):
    done = launch("-m", "optimizer.lr=1e-3,2e-3", "seed=1,2", "sweep.preview=true")
    assert done.code == 0
    assert "  lr=0.002 seed=1" in done.out.splitlines()
    assert "mvit: 4 trials in one slot, in " in done.out
    assert not done.runs.exists()
    assert stand_ins.started == []


def test_a_sweep_that_is_told_to_stop_after_the_epoch_starts_no_other_trial(launch, stand_ins):
    stand_ins.seconds = 0.5
    stand_ins.at_start = lambda run: main(["stop", str(run.folder.path.parent), "--after", "epoch"])
    done = launch("-m", "seed=1,2,3")
    assert (done.code, len(stand_ins.started)) == (75, 1)
    assert "stops after the current epoch; continue later with: python -m mvit resume " in done.out
    stand_ins.at_start = lambda run: None
    assert main(["resume", str(the_sweep(done))]) == 0
    assert len(stand_ins.started) == 3


@pytest.mark.parametrize("status", ["FROZEN", "FINISHED"])
def test_what_does_not_run_cannot_be_stopped(launch, stand_ins, capfd, status):
    done = launch("-m", "seed=1,2", f"freeze={'true' if status == 'FROZEN' else 'false'}")
    assert main(["stop", str(the_sweep(done))]) == 2
    assert capfd.readouterr().err.endswith(f"is not running: it is {status}\n")


def test_seeds_are_told_with_their_confidence(launch, stand_ins):
    stand_ins.accuracy = lambda config, epoch: 90.0 + config.seed
    done = launch("experiment=seeds", "seed=1,2,3", "train.epochs=1")
    assert (
        "mvit: 3 seeds: best 92.00 % on average, standard deviation 1.00, 95% confidence interval 89.52 to 94.48"
        in done.out
    )
