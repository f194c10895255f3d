"""A sweep that was killed or stopped goes on with what of it is not finished."""

import os
import random
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from mvit.files import read_json
from mvit.rundir.journal import JournalReader
from mvit.rundir.ledger import TrialEnded, read_events
from mvit.rundir.paths import RunDir
from mvit.rundir.state import run_status
from mvit.rundir.status import read_workers
from mvit.rundir.sweep import read_trials

pytestmark = [pytest.mark.mindspore, pytest.mark.chaos]


def trials(scene):
    return [RunDir(file.parent) for file in sorted(scene.runs.glob("*/*/*/run.json"))]


def steps(folder):
    return [
        entry["step"] for entry in JournalReader(folder.journal).entries() if entry.get("metrics", {}).get("train/loss")
    ]


def ends(scene):
    return [run_status(folder) for folder in trials(scene)]


def resumed(scene):
    """The sweep is resumed, and both of its trials are finished, each once."""
    (sweep,) = {folder.path.parent for folder in trials(scene)}
    done = scene.call("-m", "mvit", "resume", str(sweep))
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"mvit: sweep FINISHED, {sweep}: 2 FINISHED" in done.stdout
    assert ends(scene) == ["FINISHED"] * 2
    assert [steps(folder) for folder in trials(scene)] == [list(range(1, 61))] * 2
    _, runs = scene.mlflow_runs()
    assert [run.info.status for run in runs] == ["FINISHED"] * 3


def test_a_sweep_whose_launcher_is_killed_in_its_second_trial(scene):
    scene.launch("-m", "seed=1,2", "train.epochs=3")
    scene.until(lambda: len(trials(scene)) == 2 and 12 in steps(trials(scene)[1]), timeout_s=240)
    scene.kill("launcher").end()
    scene.left_nothing(patience_s=10)
    assert "marked KILLED" in scene.close_orphans()
    assert ends(scene) == ["FINISHED", "KILLED"]
    resumed(scene)


def test_a_sweep_that_is_stopped_in_its_first_trial_starts_no_other(scene):
    scene.launch("-m", "seed=1,2", "train.epochs=3")
    scene.until(lambda: len(trials(scene)) == 2 and 12 in steps(trials(scene)[0]), timeout_s=240)
    scene.kill("launcher", signal.SIGINT).end()
    assert scene.process.returncode == 130
    scene.left_nothing()
    assert ends(scene) == ["KILLED", "FROZEN"]
    _, runs = scene.mlflow_runs()
    assert {run.info.status for run in runs} == {"KILLED"}
    resumed(scene)


def test_a_sweep_that_is_stopped_between_two_trials(scene):
    scene.launch("-m", "seed=1,2", "train.epochs=3")
    scene.until(lambda: len(trials(scene)) == 2 and trials(scene)[0].end.exists(), timeout_s=240)
    scene.until(lambda: read_json(trials(scene)[0].end)["mirrored"])  # the launcher turns to the next trial
    scene.kill("launcher", signal.SIGTERM).end()
    assert scene.process.returncode == 143
    assert "Traceback" not in scene.err
    scene.left_nothing()
    assert "mvit: sweep KILLED" in scene.out
    _, runs = scene.mlflow_runs()
    sweeps = [run for run in runs if run.data.tags.get("mvit.kind") == "sweep"]
    assert [run.info.status for run in sweeps] == ["KILLED"]
    assert {run.info.status for run in runs} <= {"FINISHED", "KILLED"}


KILLS = 10
TWELVE = ("seed=1,2,3", "optimizer.lr=1e-3,2e-3", "optimizer.weight_decay=0.01,0.1", "train.epochs=2", "sweep.slots=2")
TWELVE = ("topology=cpu", *TWELVE)


def the_sweep(scene):
    (ledger,) = scene.runs.glob("*/*/ledger.jsonl")
    return ledger.parent


def ended(sweep):
    """How each trial ended, each time."""
    found = {}
    for event in read_events(sweep):
        if isinstance(event, TrialEnded):
            found.setdefault(event.trial, []).append(event.status)
    return found


def processes_of(scene):
    """Those whose command names a folder of the scene."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            words = (entry / "cmdline").read_text().replace("\0", " ")
        except OSError:
            continue
        if str(scene.runs) in words and entry.name != str(os.getpid()):
            found.append(words)
    return found


def newest(folder):
    return load_file(max(folder.checkpoints.glob("step-*.safetensors")))


@pytest.mark.timeout(3000)
def test_a_sweep_whose_parent_is_killed_ten_times_loses_nothing(scene, tmp_path):
    chosen = random.Random(os.urandom(8))
    scene.launch("-m", *TWELVE)
    scene.until(lambda: list(scene.runs.glob("*/*/ledger.jsonl")))  # before it, there is nothing to lose
    for _ in range(KILLS):
        time.sleep(3 + 4 * chosen.random())
        if scene.process.poll() is not None:
            break
        scene.kill("launcher")
        scene.process.wait()
        scene._start(["-m", "mvit", "resume", str(the_sweep(scene))], {})
    scene.end(timeout_s=600)
    # Its parent may have been killed after all was over, but for the last word to MLflow.
    assert scene.process.returncode == 0 or "is FINISHED" in scene.err, scene.out + scene.err
    scene.close_orphans()
    sweep = the_sweep(scene)
    folders = [RunDir(sweep / trial.folder) for trial in read_trials(sweep)]
    assert [run_status(folder) for folder in folders] == ["FINISHED"] * 12
    assert all(statuses.count("FINISHED") <= 1 for statuses in ended(sweep).values())
    assert [steps(folder) for folder in folders] == [list(range(1, 41))] * 12
    assert processes_of(scene) == []
    _, runs = scene.mlflow_runs()
    assert len(runs) == 13
    assert {run.info.status for run in runs} == {"FINISHED"}
    for trial, folder in zip(read_trials(sweep), folders, strict=True):
        alone = type(scene)(tmp_path / f"alone-{trial.trial}", recipe=())
        overrides = [text for text in trial.overrides if not text.startswith("runs_dir=")]
        alone.launch(*overrides, "topology.threads=1", "tracking=none").end()
        a, b = newest(folder), newest(alone.folder)
        assert [name for name in a if (a[name].view(np.int32) != b[name].view(np.int32)).any()] == [], trial


@pytest.mark.timeout(1500)
def test_of_twelve_trials_two_fail_alone_and_are_resumed_by_class(scene, tmp_path):
    diverges, victim = 2, 7
    rates = ["1e30" if number == diverges else f"{number + 1}e-4" for number in range(12)]
    file = tmp_path / "trials.csv"
    file.write_text("\n".join(["optimizer.lr", *rates]))
    more = ("topology=cpu", "train.epochs=2", "sweep.slots=2", "schedule=constant", "schedule.warmup=0")
    scene.launch("-m", f"sweep.trials=@{file}", *more)
    scene.until(lambda: len(trials(scene)) == 12 and 5 in steps(trials(scene)[victim]), timeout_s=400)
    os.kill(read_workers(trials(scene)[victim])[0].pid, signal.SIGKILL)
    scene.end(timeout_s=600)
    assert scene.process.returncode == 1
    sweep = the_sweep(scene)
    assert [number for number, status in enumerate(ends(scene)) if status != "FINISHED"] == [diverges, victim]
    kinds = {event.trial: event.kind for event in read_events(sweep) if isinstance(event, TrialEnded) and event.kind}
    assert kinds == {diverges: "nan", victim: "killed"}
    assert "the loss is not finite at step" in scene.err
    _, runs = scene.mlflow_runs()
    status = {run.data.tags["folder"]: run.info.status for run in runs}
    assert [status[str(folder.path)] for folder in trials(scene)] == ends(scene)

    before = ended(sweep)
    assert scene.call("-m", "mvit", "resume", str(sweep)).returncode == 1  # the one that would fail again is left
    again = ended(sweep)
    assert {trial for trial in again if len(again[trial]) > len(before[trial])} == {victim}
    assert again[victim] == ["FAILED", "FINISHED"]
    assert scene.call("-m", "mvit", "resume", str(sweep), "--failed").returncode == 1
    last = ended(sweep)
    assert {trial for trial in last if len(last[trial]) > len(again[trial])} == {diverges}


@pytest.mark.timeout(900)
@pytest.mark.parametrize("disk", [512], indirect=True)
def test_a_full_disk_ends_a_sweep_which_goes_on_when_there_is_room(scene, disk):
    scene.launch("-m", "topology=cpu", "seed=1,2,3,4,5,6", "train.epochs=3", "sweep.slots=2")
    scene.until(lambda: "FINISHED" in ends(scene) and ends(scene).count("RUNNING") == 2, timeout_s=240)
    disk.fill()
    scene.end(timeout_s=400)
    assert scene.process.returncode == 1
    assert "mvit: the sweep is ended: " in scene.err
    assert "No space left on device" in scene.err
    assert "Traceback" not in scene.out + scene.err
    assert processes_of(scene) == []
    disk.free()
    scene.close_orphans()
    sweep = the_sweep(scene)
    before = ends(scene)
    assert 1 <= before.count("FAILED") <= 2  # those that ran in the two slots, no other
    assert before.count("FROZEN") >= 2

    done = scene.call("-m", "mvit", "resume", str(sweep))
    assert done.returncode == 0, done.stdout + done.stderr
    assert ends(scene) == ["FINISHED"] * 6
    assert [steps(folder) for folder in trials(scene)] == [list(range(1, 61))] * 6
    _, runs = scene.mlflow_runs()
    assert [run.info.status for run in runs] == ["FINISHED"] * 7
