"""Workers that raise, hang, run out of memory or disappear: the first cause is found and reported."""

import os
import resource
import signal
import time

import pytest

from mvit.data.generated import write_image_folder
from mvit.files import read_json
from mvit.rundir.status import Stage
from mvit.worker.faults import Disappear, Fault, Kill, Leave, Raise, Sleep
from tests.scene import TRAIN

pytestmark = [pytest.mark.mindspore, pytest.mark.chaos]

WRONG_SHAPE = Raise(error="ValueError", message="a shape is wrong")
HANG = Sleep(seconds=3600)


def faulty(scene, *, rank, at, action):
    """Variables of the environment that make a rank do this on entering a stage, or after a step."""
    return Fault(rank=rank, at=at, action=action, record=str(scene.path / "fault")).environment()


def since_fault(scene):
    return time.time() - float((scene.path / "fault").read_text().split()[0])


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize(
    ("at", "stage", "kind"),
    [
        (Stage.DATA, "data", "code"),
        (Stage.COMPILE, "compile", "compile"),
        (25, "step", "code"),
        (Stage.EVALUATE, "evaluate", "code"),
    ],
)
def test_a_rank_raises(scene, measured, rank, at, stage, kind):
    scene.launch(**faulty(scene, rank=rank, at=at, action=WRONG_SHAPE)).end()
    measured("from a worker's exception to the launcher's end", since_fault(scene))
    scene.holds("FAILED", code=1, kind=kind, at_least=10 if stage in ("step", "evaluate") else None)
    error = read_json(scene.folder.error)
    assert (error["rank"], error["stage"], error["message"]) == (rank, stage, "ValueError: a shape is wrong")
    place = {"data": "session", "compile": "train", "step": "train", "evaluate": "train"}[stage]
    assert error["where"].startswith(f"mvit/worker/{place}.py:")
    assert f"mvit: log: {scene.folder.logs}/attempt-1/worker_{rank}.log" in scene.err


@pytest.mark.parametrize(
    ("action", "kind"),
    [
        (Raise(error="MemoryError"), "oom"),
        (Disappear(code=0), "killed"),
        (Kill(signal=signal.SIGABRT), "killed"),
        (Leave(code=3), "code"),
        (Raise(error="RuntimeError", message="AllReduce timed out"), "comm"),
    ],
    ids=lambda value: value if isinstance(value, str) else value.kind,
)
def test_a_rank_ends_otherwise(scene, measured, action, kind):
    scene.launch(**faulty(scene, rank=1, at=25, action=action)).end()
    measured("from a worker's end to the launcher's end", since_fault(scene))
    scene.holds("FAILED", code=1, kind=kind, at_least=20)
    assert read_json(scene.folder.error)["rank"] == 1


@pytest.mark.parametrize(
    ("at", "stage", "limit"),
    [
        (Stage.DATA, "data", "limits.data_s=15"),
        (Stage.COMPILE, "compile", "limits.compile_s=30"),
        (25, "step", "limits.step_s=15"),
        (Stage.EVALUATE, "evaluate", "limits.evaluate_s=15"),
    ],
)
def test_a_rank_hangs(scene, at, stage, limit):
    scene.launch(limit, **faulty(scene, rank=1, at=at, action=HANG)).end()
    scene.holds("FAILED", code=1, kind="hang", at_least=20 if stage in ("step", "evaluate") else None)
    error = read_json(scene.folder.error)
    assert (error["rank"], error["stage"]) == (1, stage)
    assert f"over {limit}" in error["message"]


def test_a_rank_that_hangs_for_longer_than_a_collective_waits_is_named(scene):
    """MindSpore ends the wait of rank 0 after half a minute, and so it is rank 0 that has an exception."""
    scene.launch("limits.compile_s=300", **faulty(scene, rank=1, at=Stage.COMPILE, action=HANG)).end()
    scene.holds("FAILED", code=1, kind="hang")
    error = read_json(scene.folder.error)
    assert (error["rank"], error["stage"]) == (1, "compile")
    assert error["message"].endswith("when rank 0 gave up on it")


def test_ranks_that_do_not_find_each_other_are_named(scene):
    """Who waits in MindSpore's join, and who hangs there, looks the same."""
    scene.launch("limits.join_s=40", **faulty(scene, rank=1, at=Stage.JOIN, action=HANG)).end()
    scene.holds("FAILED", code=1, kind="hang")
    assert "failed (join, hang): ranks 0, 1 in join for 40 s, over limits.join_s=40" in scene.err


def test_a_rank_is_stopped(scene):
    scene.launch("limits.step_s=15").until_step(25).kill("rank 0", signal.SIGSTOP).end()
    scene.holds("FAILED", code=1, kind="hang", at_least=20)
    assert (read_json(scene.folder.error)["rank"], read_json(scene.folder.error)["stage"]) == (0, "step")


def test_a_rank_that_is_stopped_for_a_while_goes_on(scene):
    scene.launch().until_step(25).kill("rank 1", signal.SIGSTOP)
    stopped = scene.pid("rank 1")
    time.sleep(5)
    os.kill(stopped, signal.SIGCONT)
    scene.end()
    scene.holds("FINISHED", code=0, at_least=80)


def test_the_memory_of_a_rank_ends(scene):
    # A compilation alone needs too little that is new.
    scene.launch("topology.compile_cache=false", **faulty(scene, rank=1, at=Stage.BUILD, action=Sleep(seconds=5.0)))
    scene.until(lambda: (status := scene.statuses().get(1)) is not None and status.stage == "build")
    resource.prlimit(scene.pid("rank 1"), resource.RLIMIT_AS, (1 << 20, 1 << 20))
    scene.end()
    error = read_json(scene.folder.error)
    # Python and glibc say that memory is missing; MindSpore follows a null pointer, of which only the end is seen.
    assert error["kind"] in ("oom", "killed")
    scene.holds("FAILED", code=1, kind=error["kind"])
    assert error["rank"] == 1
    assert error["stage"] in ("build", "compile")


@pytest.fixture
def pictures(scene):
    """An image folder, which the scene trains on."""
    folder = write_image_folder(scene.path / "images", classes=7, train=160, val=50, size=(60, 40))
    scene.recipe = (*TRAIN, "topology=cpu_2", "data=imagefolder", f"data.root={folder}", "data.workers=2")
    return folder


@pytest.mark.parametrize("stage", ["compile", "step"])
def test_a_process_that_prepares_images_is_killed(scene, pictures, stage):
    scene.launch()
    scene.until_step(25) if stage == "step" else scene.until_stage("compile")
    scene.kill("data").end()
    scene.holds("FAILED", code=1, kind="data", at_least=20 if stage == "step" else None)


def test_images_that_are_cut_while_the_run_goes_on_fail_it_and_it_is_not_resumed(scene, pictures):
    scene.launch().until_step(25)
    for path in (pictures / "train").rglob("*.jpg"):
        os.truncate(path, path.stat().st_size // 2)
    scene.end()
    scene.holds("FAILED", code=1, kind="data", at_least=20)
    assert str(pictures / "train") in scene.err
    refused = scene.call("-m", "mvit", "resume", str(scene.folder.path))
    assert refused.returncode == 2
    assert refused.stderr.count("\n") == 1
    assert "its data has changed since the run was made" in refused.stderr


def test_a_loss_that_is_not_finite_ends_the_run(scene):
    scene.launch("optimizer.lr=1e30", "schedule=constant").end()
    scene.holds("FAILED", code=1, kind="nan")
    assert "is not finite" in scene.err


def test_restarts_are_counted(scene):
    scene.launch("train.max_restarts=1").until_step(25).kill("rank 1")
    scene.until(lambda: scene.events("resumed"))
    scene.until_step(45).kill("rank 0").end()
    scene.holds("FAILED", code=1, kind="killed", at_least=40)
    assert "restart 1 of 1" in scene.out


def test_an_exception_is_not_tried_again(scene):
    scene.launch("train.max_restarts=3", **faulty(scene, rank=0, at=25, action=WRONG_SHAPE)).end()
    scene.holds("FAILED", code=1, kind="code", at_least=20)
    assert [path.name for path in scene.folder.logs.iterdir()] == ["attempt-1"]


def test_ctrl_c_ends_a_restart(scene):
    scene.launch("train.max_restarts=5").until_step(25).kill("rank 1")
    scene.until(lambda: scene.folder.attempt_logs(2).exists())
    scene.kill("launcher", signal.SIGINT).end()
    scene.holds("KILLED", code=130, at_least=20)


def test_a_run_that_lives_is_not_resumed(scene):
    scene.launch().until_step(10)
    refused = scene.call("-m", "mvit", "resume", str(scene.folder.path))
    assert refused.returncode == 2
    assert refused.stderr.startswith(f"mvit: {scene.folder.path} is still running: its launcher is process ")
    scene.end()
    scene.holds("FINISHED", code=0, at_least=80)


def test_of_two_that_resume_at_once_one_is_refused(scene):
    scene.launch().until_step(25).kill("rank 1").end()
    scene.resume()
    other = scene.call("-m", "mvit", "resume", str(scene.folder.path))
    scene.end()
    assert sorted((scene.process.returncode, other.returncode)) == [0, 2]
    if scene.process.returncode == 0:
        scene.holds("FINISHED", code=0, at_least=80)
        scene.points_hold()
