"""One attack of each kind; the other files of this folder have many."""

import os
import signal
import socket

import pytest

from mvit.files import read_json
from tests.chaos.test_faults import WRONG_SHAPE, faulty, since_fault

pytestmark = pytest.mark.mindspore


@pytest.mark.long
def test_ctrl_c_leaves_the_current_step_and_a_damaged_checkpoint_the_one_before(scene, measured):
    scene.launch().until_step(35).kill("launcher", signal.SIGINT)
    measured("from SIGINT to the end of the last process", scene.end())
    step = read_json(scene.folder.stop_at)["step"]
    scene.holds("KILLED", code=130, at_least=step)
    assert scene.steps()[-1] == step
    assert f"stopped after step {step}; continue with: python -m mvit resume {scene.folder.path}" in scene.err

    before, newest = sorted(scene.folder.checkpoints.glob("step-*.safetensors"))[-2:]
    assert newest.stem == f"step-{step:08d}"
    os.truncate(newest, newest.stat().st_size // 2)
    scene.resume().end()
    scene.holds("FINISHED", code=0, at_least=80)
    assert before.stem == f"step-{scene.events('resumed')[0]['step']:08d}"
    assert f"skipped: {newest} is damaged" in scene.out
    scene.points_hold()


def test_a_launcher_that_is_killed_leaves_no_process_and_its_run_is_closed_and_resumed(scene):
    scene.launch().until_step(25)
    scene.until(lambda: scene.folder.tracking.exists() and read_json(scene.folder.tracking)["run_id"])
    scene.kill("launcher").end()
    scene.left_nothing(patience_s=10)
    assert "marked KILLED" in scene.close_orphans()
    scene.holds("KILLED", code=-signal.SIGKILL, at_least=20)
    scene.resume().end()
    scene.holds("FINISHED", code=0, at_least=80)
    scene.points_hold()


def test_a_killed_worker_costs_a_restart_and_a_taken_port_none(scene):
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("127.0.0.1", scene.port))
        taken.listen()
        scene.launch("train.max_restarts=1").until_step(25)
    scene.kill("rank 1").end()
    scene.holds("FINISHED", code=0, at_least=80)
    assert (
        "failed (rank 1, step, killed): the process disappeared without reporting an error; restart 1 of 1, after step"
        in scene.out
    )
    assert len(scene.events("resumed")) == 1
    scene.points_hold()


@pytest.mark.chaos
def test_the_exception_of_a_worker_is_told_at_once(scene, measured):
    scene.launch(**faulty(scene, rank=1, at=25, action=WRONG_SHAPE)).end()
    measured("from a worker's exception to the launcher's end", since_fault(scene))
    scene.holds("FAILED", code=1, kind="code", at_least=20)
    error = read_json(scene.folder.error)
    assert (error["rank"], error["stage"], error["message"]) == (1, "step", "ValueError: a shape is wrong")
    assert error["where"].startswith("mvit/worker/train.py:")
    assert f"mvit: log: {scene.folder.logs}/attempt-1/worker_1.log" in scene.err


@pytest.mark.chaos
def test_a_disk_without_room_costs_the_checkpoints_alone(scene, disk):
    scene.launch().until_step(15)
    disk.fill(but_kb=300)
    scene.end()
    scene.holds("FINISHED", code=0, at_least=10)
    assert {event["reason"] for event in scene.events("checkpoint_failed")} == {"No space left on device"}
    assert "mvit: the checkpoint of step 20 was not written: No space left on device" in scene.err
    scene.points_hold()
