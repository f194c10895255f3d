"""SIGKILL of any one process, at any stage."""

import signal
import time

import pytest

from mvit.files import read_json

pytestmark = [pytest.mark.mindspore, pytest.mark.chaos]

LONG_EVALUATION = ("data.num_val=6000",)
LONG_TRAINING = ("train.epochs=20",)
"""The scheduler is missed after some seconds, in which a few epochs may end."""
STAGES = ("join", "compile", "step", "evaluate")


def reach(scene, stage):
    scene.launch(*(LONG_EVALUATION if stage == "evaluate" else LONG_TRAINING))
    if stage == "step":
        return scene.until_step(25)
    scene.until_stage(stage)
    if stage == "evaluate":  # its checkpoint is written meanwhile: a kill before that costs it, which is no defect
        scene.until(lambda: (scene.folder.checkpoints / "step-00000020.json").exists())
    return scene


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("victim", ["rank 0", "rank 1", "scheduler", "msrun"])
def test_a_process_of_the_launch_is_killed(scene, measured, victim, stage):
    reach(scene, stage).kill(victim)
    measured(f"from SIGKILL of {victim} to the launcher's end", scene.end())
    scene.holds("FAILED", code=1, kind="killed", at_least={"step": 20, "evaluate": 20}.get(stage))
    error = read_json(scene.folder.error)
    if victim.startswith("rank"):
        assert f"rank {error['rank']}" == victim


@pytest.mark.parametrize("stage", STAGES)
def test_the_launcher_is_killed(scene, measured, stage):
    reach(scene, stage)
    scene.until(lambda: (t := scene.folder.tracking).exists() and read_json(t)["run_id"])
    scene.kill("launcher")
    began = time.monotonic()
    scene.end()
    scene.left_nothing(patience_s=10)
    measured("from SIGKILL of the launcher to the end of the last process", time.monotonic() - began)
    assert "marked KILLED" in scene.close_orphans()
    scene.holds("KILLED", code=-signal.SIGKILL)
