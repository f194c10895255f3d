"""A sweep that was killed or stopped goes on with the trials that it had begun."""

import signal

import pytest

from mvit.files import read_json
from mvit.rundir.journal import JournalReader
from mvit.rundir.paths import RunDir

pytestmark = [pytest.mark.mindspore, pytest.mark.chaos]


def trials(scene):
    return [RunDir(file.parent) for file in sorted(scene.runs.glob("*/*/*/run.json"))]


def steps(folder):
    return [
        entry["step"] for entry in JournalReader(folder.journal).entries() if entry.get("metrics", {}).get("train/loss")
    ]


def resumed(scene, *, finished, not_begun=()):
    (sweep,) = {folder.path.parent for folder in trials(scene)}
    done = scene.call("-m", "mvit", "resume", str(sweep))
    assert done.returncode == (1 if not_begun else 0), done.stdout + done.stderr
    assert f"mvit: sweep {'FAILED' if not_begun else 'FINISHED'}, {sweep}: {finished} FINISHED" in done.stdout
    begin = [line for line in done.stdout.splitlines() if line.startswith("  python launch.py ")]
    assert [command.split()[-1] for command in begin] == list(not_begun)
    assert [read_json(folder.end)["status"] for folder in trials(scene)] == ["FINISHED"] * finished
    assert [steps(folder) for folder in trials(scene)] == [list(range(1, 21))] * finished
    _, runs = scene.mlflow_runs()
    of_sweep = "FAILED" if not_begun else "FINISHED"
    assert sorted(run.info.status for run in runs) == sorted([of_sweep, *["FINISHED"] * finished])


def test_a_sweep_whose_launcher_is_killed_in_its_second_trial(scene):
    scene.launch("-m", "seed=1,2", "train.epochs=1")
    scene.until(lambda: len(trials(scene)) == 2 and 12 in steps(trials(scene)[1]), timeout_s=240)
    scene.kill("launcher").end()
    scene.left_nothing(patience_s=10)
    assert "marked KILLED" in scene.close_orphans()
    assert [read_json(folder.end)["status"] for folder in trials(scene)] == ["FINISHED", "KILLED"]
    resumed(scene, finished=2)


def test_a_sweep_that_is_stopped_in_its_first_trial_begins_no_other(scene):
    scene.launch("-m", "seed=1,2", "train.epochs=1")
    scene.until(lambda: len(trials(scene)) == 1 and 12 in steps(trials(scene)[0]), timeout_s=240)
    scene.kill("launcher", signal.SIGINT).end()
    assert scene.process.returncode == 130
    scene.left_nothing()
    assert [read_json(folder.end)["status"] for folder in trials(scene)] == ["KILLED"]
    _, runs = scene.mlflow_runs()
    assert {run.info.status for run in runs} == {"KILLED"}
    resumed(scene, finished=1, not_begun=["seed=2"])


def test_a_sweep_that_is_stopped_between_two_trials(scene):
    scene.launch("-m", "seed=1,2", "train.epochs=1")
    scene.until(lambda: len(trials(scene)) == 1 and trials(scene)[0].end.exists(), timeout_s=240)
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
