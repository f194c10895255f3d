"""A sweep that was killed or stopped goes on with what of it is not finished."""

import signal

import pytest

from mvit.files import read_json
from mvit.rundir.journal import JournalReader
from mvit.rundir.paths import RunDir
from mvit.rundir.state import run_status

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
