"""Who stops a run gets a checkpoint of the current step, once more and it ends at once."""

import os
import signal
import time

import pytest

from mvit.files import read_json
from tests.chaos.test_kills import reach

pytestmark = [pytest.mark.mindspore, pytest.mark.chaos]


@pytest.mark.parametrize("stage", ["join", "compile", "step", "evaluate"])
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_the_launcher_is_asked_to_stop(scene, measured, stage, number, code):
    reach(scene, stage).kill("launcher", number)
    measured(f"from {number.name} to the end of the last process", scene.end())
    scene.holds("KILLED", code=code)
    if stage == "step":
        step = read_json(scene.folder.stop_at)["step"]
        assert step == scene.steps()[-1]
        scene.checkpoints_hold(at_least=step)
        assert f"stopped after step {step}; continue with: python -m mvit resume {scene.folder.path}" in scene.err
    elif stage == "evaluate":
        scene.checkpoints_hold(at_least=20)


@pytest.mark.parametrize("stage", ["step", "evaluate"])
@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM])
def test_the_second_signal_ends_it_at_once(scene, measured, stage, second):
    reach(scene, stage).kill("launcher", signal.SIGINT)
    time.sleep(0.15)
    os.kill(scene.process.pid, second)
    measured("from the second signal to the end of the last process", scene.end())
    scene.holds("KILLED", code=130, at_least=10 if stage == "step" else None)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("victim", ["rank 0", "rank 1", "msrun"])
def test_a_signal_to_another_process_than_the_launcher_is_a_failure(scene, measured, victim, number):
    scene.launch().until_step(25).kill(victim, number)
    measured(f"from {number.name} to a worker, or to msrun, to the launcher's end", scene.end())
    scene.holds("FAILED", code=1, kind="killed", at_least=20)


def test_a_run_that_was_stopped_while_it_resumes_can_be_resumed(scene):
    scene.launch().until_step(25).kill("launcher", signal.SIGINT).end()
    scene.resume().until_stage("compile").kill("launcher", signal.SIGINT).end()
    scene.holds("KILLED", code=130, at_least=25)
    scene.resume().end()
    scene.holds("FINISHED", code=0, at_least=80)
    scene.points_hold()
