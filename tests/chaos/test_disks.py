"""Disks that are full or cannot be written, for the run and for the store."""

import shutil
import signal
import time

import pytest

from mvit.files import read_json
from tests.chaos.disk import Disk, mount, unmount

pytestmark = [pytest.mark.mindspore, pytest.mark.chaos]


def test_a_disk_that_is_full_for_a_while_costs_nothing_else(scene, disk):
    scene.launch().until_step(15)
    disk.fill()
    scene.until(lambda: "cannot write to" in scene.err)
    time.sleep(1)
    disk.free()
    scene.end()
    scene.holds("FINISHED", code=0, at_least=80)
    scene.points_hold()


@pytest.mark.parametrize("stage", ["join", "compile", "evaluate"])
def test_a_disk_is_full_for_a_while_at_another_stage(scene, disk, stage):
    # Long enough for what follows: a graph from the cache is there at once, and 80 steps take seconds.
    longer = {"evaluate": ["data.num_val=3000"], "compile": ["topology.compile_cache=false"]}
    scene.launch(*longer.get(stage, []))
    scene.until_stage(stage)
    disk.fill()
    time.sleep(3)
    disk.free()
    scene.end()
    scene.holds("FINISHED", code=0, at_least=80)


def test_a_disk_that_stays_full_fails_the_run_which_can_be_resumed(scene, disk):
    scene.launch().until_step(15)
    disk.fill()
    scene.end()
    assert scene.process.returncode == 1
    assert "No space left on device" in scene.err
    assert "Traceback" not in scene.out + scene.err
    scene.left_nothing()
    scene.checkpoints_hold(at_least=10)
    disk.free()
    assert "marked FAILED" in scene.close_orphans()
    scene.holds("FAILED", code=1, kind="disk", at_least=10)
    scene.resume().end()
    scene.holds("FINISHED", code=0, at_least=80)
    scene.points_hold()


def test_ctrl_c_on_a_full_disk_ends_the_run_with_the_checkpoint_before(scene, measured, disk):
    scene.launch().until_step(15)
    disk.fill()
    scene.kill("launcher", signal.SIGINT)
    measured("from SIGINT on a full disk to the end of the last process", scene.end())
    assert scene.process.returncode == 130
    scene.left_nothing()
    disk.free()
    scene.close_orphans()
    scene.holds("KILLED", code=130, at_least=10)


def test_a_killed_worker_on_a_full_disk_is_told_as_one_or_the_other(scene, disk):
    """Where it was killed in the midst of a write, there is room again, and the cause is known."""
    scene.launch().until_step(15)
    disk.fill()
    scene.kill("rank 1").end()
    disk.free()
    kind = "disk" if "marked FAILED" in scene.close_orphans() else "killed"
    scene.holds("FAILED", code=1, kind=kind, at_least=10)
    assert "the process disappeared without reporting an error" in scene.err


def test_nothing_is_begun_on_a_full_disk(scene, disk):
    disk.fill()
    scene.launch().end()
    assert scene.process.returncode == 2
    assert scene.err.count("\n") == 1
    assert "No space left on device" in scene.err
    assert not list(scene.runs.glob("**/run.json"))


def test_a_resume_on_a_full_disk_is_refused_in_one_line(scene, disk):
    scene.launch().until_step(25).kill("launcher", signal.SIGINT).end()
    disk.fill()
    scene.resume().end()
    assert scene.process.returncode == 2
    assert scene.err.count("\n") == 1
    assert "No space left on device" in scene.err
    disk.free()
    scene.resume().end()
    scene.holds("FINISHED", code=0, at_least=80)


def test_a_disk_that_can_only_be_read_is_refused(scene, disk):
    mount("-o", "remount,ro", str(disk.path))
    scene.launch().end()
    assert scene.process.returncode == 2
    assert scene.err.count("\n") == 1
    assert "Read-only file system" in scene.err


def test_a_run_whose_disk_can_only_be_read_is_not_resumed(scene, disk):
    scene.launch().until_step(25).kill("launcher", signal.SIGINT).end()
    mount("-o", "remount,ro", str(disk.path))
    scene.resume().end()
    assert scene.process.returncode == 2
    assert scene.err.count("\n") == 1
    assert "Read-only file system" in scene.err
    scene.checkpoints_hold(at_least=25)


def test_checkpoints_that_can_only_be_read_cost_the_checkpoints_alone(scene):
    scene.launch().until_step(15)
    folder = str(scene.folder.checkpoints)
    mount("--bind", folder, folder)
    try:
        mount("-o", "remount,bind,ro", folder)
        scene.end()
        scene.holds("FINISHED", code=0, at_least=10)
        assert "the checkpoint of step 20 was not written: Read-only file system" in scene.err
    finally:
        unmount(folder)


def test_checkpoints_that_are_thrown_away_cost_the_checkpoints_alone(scene):
    scene.launch().until_step(15)
    scene.folder.checkpoints.rename(scene.path / "elsewhere")
    scene.end()
    assert scene.process.returncode == 0
    assert "the checkpoint of step 20 was not written: No such file or directory" in scene.err
    scene.left_nothing()
    assert read_json(scene.folder.end)["status"] == "FINISHED"


@pytest.fixture
def store_disk(scene):
    """Where the scene's store is."""
    made = Disk(scene.path / "disk", 16)
    database = made.path / "mlflow.db"
    shutil.copy(scene.path / "mlflow.db", database)
    scene.uri = f"sqlite:///{database}"
    yield made
    scene.make_room()
    unmount(made.path)


def test_a_full_disk_of_the_store_does_not_touch_the_run(scene, store_disk):
    scene.launch().until_step(15)
    store_disk.fill()
    scene.end()
    scene.holds("FINISHED", code=0, at_least=80, mlflow=None)
    assert "later: python -m mvit sync" in scene.err
    store_disk.free()
    assert scene.sync().returncode == 0
    scene.holds("FINISHED", code=0, at_least=80)
    scene.points_hold()


def test_a_store_that_can_only_be_read_does_not_touch_the_run(scene, store_disk):
    mount("-o", "remount,ro", str(store_disk.path))
    scene.launch().end()
    scene.holds("FINISHED", code=0, at_least=80, mlflow=None)
    mount("-o", "remount,rw", str(store_disk.path))
    assert scene.sync().returncode == 0
    scene.holds("FINISHED", code=0, at_least=80)
    scene.points_hold()


@pytest.mark.timeout(900)
def test_a_first_run_without_room_for_kernels_and_graphs_trains_in_the_plain_form(scene, disk):
    disk.fill(but_kb=64)
    scene.runs = scene.path / "runs"
    cache = str(disk.path)
    scene.launch(XDG_CACHE_HOME=cache, TMPDIR=cache).end(timeout_s=800)
    scene.holds("FINISHED", code=0, at_least=80)
    assert scene.out.count("several times slower than fused; ") == 1
    assert "No space left on device" in scene.out
