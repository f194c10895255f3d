"""Runs as jobs of a real Slurm."""

import sys
import time

import pytest

from mvit.files import file_digest, read_json
from mvit.rundir.ending import read_ending
from mvit.rundir.job import read_job
from mvit.rundir.journal import JournalReader
from mvit.rundir.paths import RunDir
from tests.cluster import needs_slurm, slurm
from tests.scene import RECIPE

pytestmark = [needs_slurm, pytest.mark.mindspore, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    with slurm(tmp_path_factory.mktemp("slurm")) as one:
        yield one


def launched(cluster, path, *overrides):
    words = (sys.executable, "launch.py", f"runs_dir={path}/runs", *RECIPE, "launch=slurm", "tracking=none")
    done = cluster.run(*words, *overrides)
    assert done.returncode == 0, done.stdout
    return RunDir(next(file.parent for file in path.glob("runs/*/*/run.json"))), done.stdout


def until(holds, folder, timeout_s=120):
    deadline = time.monotonic() + timeout_s
    while not (found := holds()):
        said = "\n".join(path.read_text() for path in folder.logs.glob("job-*.log"))
        assert time.monotonic() < deadline, said
        time.sleep(0.2)
    return found


def has_ended(folder, status):
    return lambda: (ending := read_ending(folder)) and ending.status == status and ending


def until_step(folder, step):
    until(lambda: any(e.get("step", 0) >= step for e in JournalReader(folder.journal).entries()), folder)


def weights(folder):
    return file_digest(folder.checkpoints / f"{read_json(folder.checkpoints / 'last.json')['file']}.safetensors")


def mvit(cluster, *words):
    return cluster.run(sys.executable, "-m", "mvit", *words)


@pytest.fixture(scope="module")
def undisturbed(cluster, tmp_path_factory):
    """A job that nobody disturbs, and what the launch said."""
    folder, said = launched(cluster, tmp_path_factory.mktemp("undisturbed"))
    until(has_ended(folder, "FINISHED"), folder)
    return folder, said


def test_a_run_is_submitted_and_left_and_ends_finished(undisturbed):
    folder, said = undisturbed
    job = read_job(folder)
    assert job is not None
    assert f"mvit: job {job.id} of Slurm: {folder.job_script}" in said
    assert "mvit run" in folder.job_script.read_text()
    assert "FINISHED in" in (folder.logs / f"job-{job.id}.log").read_text()


@pytest.mark.parametrize("how", ["preempted", "near its time limit"])
def test_a_job_that_is_ended_before_the_run_goes_on_by_itself_to_the_same_bits(cluster, undisturbed, tmp_path, how):
    folder, _ = launched(cluster, tmp_path)
    job = read_job(folder)
    assert job is not None
    until_step(folder, 20)
    if how == "preempted":
        assert cluster.run("scontrol", "requeue", job.id).returncode == 0
    else:  # as Slurm does, stop_before_s before the limit
        assert cluster.run("scancel", "--batch", "--signal=USR1", job.id).returncode == 0
    until(has_ended(folder, "FINISHED"), folder)
    resumed = [e["step"] for e in JournalReader(folder.journal).entries() if e.get("event") == "resumed"]
    assert len(resumed) == 1
    print(f"{how}: went on after step {resumed[0]} of 80")
    # On preemption Slurm signals every process at once, and what counts is the last checkpoint.
    assert resumed[0] >= (10 if how == "preempted" else 20)
    assert weights(folder) == weights(undisturbed[0])


def test_a_run_that_is_stopped_is_resumed_as_another_job(cluster, tmp_path):
    # Long enough that two commands find it running, on a fast machine too.
    folder, _ = launched(cluster, tmp_path, "train.epochs=40")
    first = read_job(folder)
    assert first is not None
    until_step(folder, 20)
    refused = mvit(cluster, "resume", str(folder.path))
    assert refused.returncode == 2
    assert f"is running as job {first.id} of Slurm; cancel it first: scancel {first.id}" in refused.stdout
    stopped = mvit(cluster, "stop", str(folder.path))
    assert stopped.returncode == 0, stopped.stdout
    assert f"{folder.path}: KILLED\n" in stopped.stdout
    assert mvit(cluster, "resume", str(folder.path)).returncode == 0
    second = read_job(folder)
    assert second is not None
    assert second.id != first.id
    until(has_ended(folder, "FINISHED"), folder)


def test_what_waits_is_not_started_again_also_after_the_controller_was_away(cluster, tmp_path):
    folder, _ = launched(cluster, tmp_path, "launch.options=[--hold]")
    job = read_job(folder)
    assert job is not None
    cluster.stop_controller()
    away = mvit(cluster, "resume", str(folder.path))
    assert away.returncode != 0
    assert len(away.stdout.splitlines()) == 1
    cluster.start_controller()
    for command in (("resume", str(folder.path)), ("run", str(folder.path))):
        refused = mvit(cluster, *command)
        assert refused.returncode == 2
        assert f"is waiting as job {job.id} of Slurm" in refused.stdout
    assert mvit(cluster, "stop", str(folder.path)).returncode == 0
    assert read_ending(folder) is None
