"""Runs that are stopped, resumed and forked: real processes, real SQLite. Attacks on them are in tests/chaos."""

import json
import shutil
import signal

import numpy as np
import pytest
from safetensors.numpy import load_file

from mvit.files import read_json
from mvit.rundir.paths import RunDir
from tests.scene import RECIPE, Scene

pytestmark = pytest.mark.mindspore

RICH = (*RECIPE, "train.ema_momentum=0.01", "model.dropout=0.1", "train.checkpoint_every_steps=null")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that nobody disturbed."""
    scene = Scene(tmp_path_factory.mktemp("whole"), recipe=RICH)
    scene.launch("tracking=none").end()
    scene.holds("FINISHED", code=0, at_least=80, mlflow=None)
    return scene


def test_a_run_that_is_stopped_goes_on_as_if_it_had_not_been(tmp_path, empty_store, whole):
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    scene = Scene(tmp_path, recipe=RICH)
    took = scene.launch().until_step(25).kill("launcher", signal.SIGINT).end()
    folder = scene.folder
    step = read_json(folder.stop_at)["step"]
    print(f"from Ctrl-C to the end: {took:.1f} s, with a checkpoint of step {step}")
    scene.holds("KILLED", code=130, at_least=step)
    assert f"mvit: stopped after step {step}; continue with: python -m mvit resume {folder.path}" in scene.err
    _, (run,) = scene.mlflow_runs()

    scene.resume().end()
    scene.holds("FINISHED", code=0, at_least=80)
    assert f"resumed after step {step}" in scene.out
    assert scene.losses() == whole.losses()
    assert best(scene.folder) == best(whole.folder)
    assert {path.name for path in folder.logs.iterdir()} == {"attempt-1", "attempt-2"}
    assert not folder.stop.exists()
    _, (again,) = scene.mlflow_runs()
    assert again.info.run_id == run.info.run_id
    scene.points_hold()


@pytest.mark.long
@pytest.mark.parametrize("topology", ["cpu", "cpu_2"])
def test_a_run_that_is_paused_after_epochs_ends_with_the_bits_of_one_that_was_not(tmp_path, whole, topology):
    recipe = (*RICH, f"topology={topology}", "tracking=none")
    if topology == "cpu_2":
        whole = Scene(tmp_path / "whole", recipe=recipe).launch()
        whole.end()
    scene = Scene(tmp_path / "paused", recipe=recipe)
    scene.launch("freeze=true").end()
    for epoch in (1, 3):
        paused = scene.call("-m", "mvit", "run", str(scene.folder.path), "--until-epoch", str(epoch))
        assert paused.returncode == 75, paused.stdout + paused.stderr
        assert f"stopped after step {20 * epoch}; continue with: " in paused.stderr
        assert scene.losses() == whole.losses()[: 20 * epoch]
        assert [e["epoch"] for e in scene.journal() if "val/acc1" in e.get("metrics", {})][-1] == epoch
        again = scene.call("-m", "mvit", "run", str(scene.folder.path), "--until-epoch", str(epoch))
        assert again.returncode == 75
        assert len(scene.losses()) == 20 * epoch  # not a step more
    assert scene.call("-m", "mvit", "resume", str(scene.folder.path)).returncode == 0
    assert scene.losses() == whole.losses()
    a, b = (load_file(next(one.folder.checkpoints.glob("step-00000080.safetensors"))) for one in (whole, scene))
    assert [name for name in a if (a[name].view(np.int32) != b[name].view(np.int32)).any()] == []


def test_a_finished_run_is_refused_and_can_be_forked(whole):
    folder = whole.folder
    refused = whole.call("-m", "mvit", "resume", str(folder.path))
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "is FINISHED" in refused.stderr
    too_short = whole.call("-m", "mvit", "resume", str(folder.path), "--fork")
    assert (too_short.returncode, too_short.stdout) == (2, "")
    assert "train.epochs: 4 ends after step 80, and the checkpoint is of step 80" in too_short.stderr

    forked = whole.call("-m", "mvit", "resume", str(folder.path), "--fork", "train.epochs=5", "optimizer.lr=1e-4")
    assert forked.returncode == 0, forked.stderr
    (new,) = (path.parent for path in whole.runs.glob("*/*/run.json") if path.parent != folder.path)
    origin = read_json(RunDir(new).provenance)["forked_from"]
    assert (origin["folder"], origin["step"]) == (str(folder.path), 80)
    lines = [json.loads(line) for line in RunDir(new).journal.read_text().splitlines()]
    assert [e["step"] for e in lines if "train/loss" in e.get("metrics", {})] == list(range(81, 101))
    assert read_json(RunDir(new).result)["steps"] == 100


def best(folder):
    return read_json(folder.result)["metrics"]["best/val_acc1"]
