"""Runs as jobs of a real Slurm."""

import shlex
import signal
import sys
import time

import pytest

from mvit.files import file_digest, read_json
from mvit.rundir.ending import read_ending
from mvit.rundir.job import read_job
from mvit.rundir.journal import JournalReader
from mvit.rundir.ledger import TrialEnded, TrialStarted, read_events
from mvit.rundir.paths import RunDir
from mvit.rundir.state import run_status, sweep_status
from mvit.rundir.sweep import trials_of
from tests.cluster import needs_slurm, slurm
from tests.scene import RECIPE

pytestmark = [needs_slurm, pytest.mark.mindspore, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    with slurm(tmp_path_factory.mktemp("slurm")) as one:
        yield one


def command_of(path, *overrides):
    return sys.executable, "launch.py", f"runs_dir={path}/runs", *RECIPE, "launch=slurm", "tracking=none", *overrides


def launched(cluster, path, *overrides):
    done = cluster.run(*command_of(path, *overrides))
    assert done.returncode == 0, done.stdout
    return RunDir(next(file.parent for file in path.glob("runs/*/*/run.json"))), done.stdout


def the_sweep(path):
    return next(file.parent for file in path.glob("runs/*/*/ledger.jsonl"))


def in_the_queue(cluster, path):
    """The jobs of these runs that wait or run, with their states."""
    jobs = [job for folder in trials_of(the_sweep(path)) if (job := read_job(folder))]
    said = cluster.run("squeue", "--noheader", "--array", "--format=%i %T").stdout
    known = {job.id for job in jobs}
    return {number: state for number, state in map(str.split, said.splitlines()) if number in known}


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
    cluster.kill_controller(knows=folder.job)
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


RATES = ("0.001", "0.0011", "0.0012", "0.0013", "0.0014", "1e30")


def test_an_array_of_six_trials_in_two_slots_is_left_and_collected(cluster, tmp_path):
    """One fails by itself and one is cancelled; the shell is gone, and the controller is away for a while."""
    # Long enough to be cancelled before the end.
    words = command_of(tmp_path, "-m", f"optimizer.lr={','.join(RATES)}", "sweep.slots=2", "train.epochs=16")
    # A login shell that is gone once the command has returned, with all that is of its session.
    done = cluster.run("setsid", "--wait", "bash", "-c", f"trap '' HUP; {shlex.join(words)}; kill -s HUP 0; exit 0")
    assert done.returncode == 0, done.stdout
    sweep = the_sweep(tmp_path)
    job = read_job(RunDir(sweep))
    assert job is not None
    assert f"mvit: job {job.id} of Slurm, an array of 6: " in done.stdout
    trials = trials_of(sweep)
    until_step(trials[0], 5)
    assert cluster.run("scancel", f"{job.id}_0").returncode == 0
    cluster.stop_controller()
    away = mvit(cluster, "resume", str(sweep))
    assert (away.returncode, len(away.stdout.splitlines())) == (2, 1)
    cluster.start_controller()
    assert "QUEUED" in mvit(cluster, "ls", "--trials", str(sweep)).stdout
    told = mvit(cluster, "resume", str(sweep))
    assert told.returncode == 0
    assert "is in the Slurm queue: " in told.stdout
    refused = mvit(cluster, "resume", "--failed", str(sweep))
    assert refused.returncode == 2
    assert "cannot be changed while it is with Slurm" in refused.stdout
    most = 0
    while states := in_the_queue(cluster, tmp_path):
        most = max(most, list(states.values()).count("RUNNING"))
        time.sleep(0.5)
    assert most == 2
    assert [run_status(trial) for trial in trials] == ["KILLED", *["FINISHED"] * 4, "FAILED"]

    again = mvit(cluster, "resume", str(sweep))
    assert "an array of 1: " in again.stdout
    assert again.returncode == 1  # one failed with an error that would come back
    until(has_ended(trials[0], "FINISHED"), trials[0])
    while in_the_queue(cluster, tmp_path):
        time.sleep(0.2)
    closed = mvit(cluster, "resume", str(sweep))
    assert closed.returncode == 1
    assert f"mvit: sweep FAILED, {sweep}: 1 FAILED, 5 FINISHED" in closed.stdout
    ended = {event.trial: event for event in read_events(sweep) if isinstance(event, TrialEnded)}
    for number, trial in enumerate(trials):
        ending = read_ending(trial)
        assert ending is not None
        assert (ended[number].status, ended[number].time > ending.time) == (ending.status, True)
    assert ended[5].kind == "nan"
    assert sum(isinstance(event, TrialEnded) and event.trial == 1 for event in read_events(sweep)) == 1


def test_a_sweep_that_waits_is_cancelled(cluster, tmp_path):
    words = command_of(tmp_path, "-m", "seed=1,2,3", "launch.options=[--hold]")
    assert cluster.run(*words).returncode == 0
    sweep = the_sweep(tmp_path)
    assert mvit(cluster, "ls", "--trials", str(sweep)).stdout.count("QUEUED") == 5  # the sweep, its note, its trials
    stopped = mvit(cluster, "stop", str(sweep))
    assert stopped.returncode == 0, stopped.stdout
    assert in_the_queue(cluster, tmp_path) == {}
    assert sweep_status(sweep) == "FROZEN"


@pytest.mark.long
def test_a_search_submits_its_trials_and_a_killed_one_takes_them_over(cluster, tmp_path):
    words = ("-m", "sweep=search", "sweep/pruner=halving", "sweep.pruner.first_rung=1", "sweep.max_trials=4")
    words = command_of(tmp_path, *words, "sweep.pruner.factor=2", "sweep.slots=2", "optimizer.lr=interval(1e-3,1e-2)")
    search = cluster.machines[0].start(*words, log=tmp_path / "said", env=cluster.environment)
    deadline = time.monotonic() + 120
    while not (
        trials := [trial for file in tmp_path.glob("runs/*/*/ledger.jsonl") for trial in trials_of(file.parent)]
    ):
        assert time.monotonic() < deadline, search.said()
        time.sleep(0.1)
    until_step(trials[0], 3)
    search.signal(signal.SIGKILL)
    search.wait()
    assert in_the_queue(cluster, tmp_path)
    sweep = the_sweep(tmp_path)
    done = mvit(cluster, "resume", str(sweep))
    assert done.returncode == 0, done.stdout
    assert sweep_status(sweep) == "FINISHED"
    trials = trials_of(sweep)
    assert len(trials) == 4
    started = [event for event in read_events(sweep) if isinstance(event, TrialStarted)]
    for number, trial in enumerate(trials):  # as many jobs as turns: none was submitted twice
        assert run_status(trial) in ("FINISHED", "PAUSED")
        turns = {event.until_epoch for event in started if event.trial == number}
        assert len(list(trial.logs.glob("job-*.log"))) == len(turns)
