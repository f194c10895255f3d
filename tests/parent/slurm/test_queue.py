"""What Slurm is asked, and what becomes of its answers; stand-ins on PATH take its place."""

import os

import pytest

from mvit.cli.main import main
from mvit.parent import resume
from mvit.parent.slurm.queue import states
from mvit.parent.sweep import execution, schedule
from mvit.rundir.ending import Outcome, read_ending, record_end
from mvit.rundir.job import Job, read_job, this_job, write_job
from mvit.rundir.launcher import read_launcher, write_launcher
from mvit.rundir.paths import RunDir
from mvit.rundir.state import sweep_status
from mvit.rundir.stop import CURRENT_EPOCH, StopReason, WantedStop, read_stop
from mvit.rundir.sweep import trials_of


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """A function that has Slurm's commands answer so."""
    room = tmp_path / "slurm"
    room.mkdir()
    monkeypatch.setenv("PATH", f"{room}:{os.environ['PATH']}")

    def answer(name, script):
        (room / name).write_text(f"#!/bin/sh\n{script}\n")
        (room / name).chmod(0o755)

    answer("sbatch", "echo 12")
    answer("squeue", "true")
    return answer


@pytest.fixture
def submitted(launch_here, slurm):
    """A sweep of three trials that was submitted."""
    done = launch_here("-m", "seed=1,2,3", "launch=slurm", "sweep.slots=2")
    assert done.code == 0, done.err
    (file,) = done.runs.glob("*/*/ledger.jsonl")
    return file.parent


def on_another_machine(folder: RunDir, job: str) -> None:
    """As if a launcher of the job had claimed the run there."""
    write_launcher(folder)
    text = folder.launcher.read_text()
    launcher = read_launcher(folder)
    assert launcher is not None
    folder.launcher.write_text(launcher.model_copy(update={"host": "n1", "job": job, "room": ""}).model_dump_json())
    assert text != folder.launcher.read_text()


@pytest.mark.parametrize(
    ("said", "known"),
    [
        ("", {}),
        ("12 RUNNING\n13 PENDING\n", {"12": "running", "13": "waiting"}),
        ("14_0 COMPLETING\n14_1 REQUEUE_HOLD\n14_2 PENDING\n", {"14_0": "running", "14_1": "waiting"}),
    ],
)
def test_the_queue_is_read(slurm, said, known):
    slurm("squeue", f"printf '{said}'")
    answer = states([Job(id=one, cluster=None) for one in ("12", "13", "14_0", "14_1", "15")])
    assert {job.id: state for job, state in answer.items()} == known


def test_a_job_that_slurm_has_forgotten_is_over(slurm):
    slurm("squeue", "echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1")
    assert states([Job(id="7", cluster=None)]) == {}


def test_each_cluster_is_asked_for_its_own(slurm, tmp_path):
    slurm("squeue", f"echo $* >> {tmp_path}/asked; case $* in *=a) echo 'CLUSTER: a'; echo '3 RUNNING';; esac")
    jobs = [Job(id="3", cluster="a"), Job(id="3_1", cluster="a"), Job(id="3", cluster="b")]
    assert list(states(jobs).items()) == [(jobs[0], "running")]
    asked = sorted((tmp_path / "asked").read_text().splitlines())
    assert [line.split()[-2:] for line in asked] == [["--jobs=3", "--clusters=a"], ["--jobs=3", "--clusters=b"]]


def test_a_task_of_an_array_is_not_called_after_the_array(monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    assert this_job() == "12"
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "12")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "3")
    assert this_job() == "12_3"


def test_each_trial_is_a_task_of_the_number_it_has(submitted):
    assert [read_job(trial) for trial in trials_of(submitted)] == [
        Job(id=f"12_{number}", cluster=None) for number in range(3)
    ]
    script = RunDir(submitted).job_script.read_text()
    assert "#SBATCH --array=0,1,2%2\n" in script
    for number, trial in enumerate(trials_of(submitted)):
        assert f"    {number}) run={trial.path} ;;\n" in script


def test_the_list_has_what_slurm_knows(submitted, slurm, capfd):
    first, second, _ = trials_of(submitted)
    slurm("squeue", "printf '12_0 PENDING\\n12_1 RUNNING\\n12_2 PENDING\\n'")
    on_another_machine(second, "12_1")
    assert main(["ls", str(submitted)]) == 0
    out = capfd.readouterr().out
    assert "RUNNING" in out
    assert "2 QUEUED" in out
    record_end(first, "KILLED", exit_code=75)  # stopped near its limit, and queued again
    slurm("squeue", "echo 12_0 PENDING")
    assert main(["ls", str(submitted)]) == 0
    out = capfd.readouterr().out
    assert "1 QUEUED" in out
    assert "1 KILLED" in out  # its machine is gone
    slurm("squeue", "echo 'slurm_load_jobs error: Unable to contact slurm controller' >&2; exit 1")
    assert main(["ls", str(submitted)]) == 0
    out, err = capfd.readouterr()
    assert err == "mvit: Slurm: slurm_load_jobs error: Unable to contact slurm controller\n"
    assert "1 RUNNING" in out


def test_what_is_with_slurm_is_not_started_again(submitted, slurm, capfd):
    slurm("squeue", "echo 12_2 PENDING")
    slurm("sbatch", "echo never >&2; exit 1")
    assert main(["resume", str(submitted)]) == 0
    assert capfd.readouterr().out.endswith("is in the Slurm queue: 2 not started, 1 waiting\n")
    assert main(["resume", str(submitted), "seed=4"]) == 2


def test_a_trial_whose_machine_is_gone_is_closed_and_submitted_again(submitted, slurm, capfd):
    first, second, third = trials_of(submitted)
    for trial, job in ((first, "12_0"), (second, "12_1")):
        on_another_machine(trial, job)
        write_job(trial, Job(id=job, cluster=None))
    record_end(third, "FINISHED", exit_code=0)
    slurm("squeue", "true")
    slurm("sbatch", "echo 13")
    assert main(["resume", str(submitted)]) == 0
    assert "mvit: job 13 of Slurm, an array of 2: " in capfd.readouterr().out
    for trial, job in ((first, "12_0"), (second, "12_1")):
        ending = read_ending(trial)
        assert ending is not None
        assert ending.error is not None
        assert (ending.status, ending.error.message) == ("KILLED", f"job {job} of Slurm has ended on n1")
    assert "#SBATCH --array=0,1%2\n" in RunDir(submitted).job_script.read_text()


def test_a_job_that_begins_again_on_another_machine_goes_on(submitted, slurm, monkeypatch, capfd):
    """Slurm queues the jobs of a machine that failed again, under their number."""
    first = trials_of(submitted)[0]
    on_another_machine(first, "12_0")
    slurm("squeue", "echo 12_0 RUNNING")
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "12")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "0")
    monkeypatch.setattr(resume, "follow", lambda run, **_: Outcome("FINISHED", 0))
    assert main(["run", str(first.path)]) == 0
    ending = read_ending(first)
    assert ending is not None
    assert ending.error is not None
    assert (ending.status, ending.error.message) == ("KILLED", "job 12_0 of Slurm has ended on n1")


def test_a_script_that_a_person_submits_again_is_known_by_its_new_number(submitted, slurm, monkeypatch):
    first = trials_of(submitted)[0]
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    monkeypatch.setattr(resume, "follow", lambda run, **_: Outcome("FINISHED", 0))
    assert main(["run", str(first.path)]) == 0
    assert read_job(first) == Job(id="77", cluster=None)


SEARCH = ("-m", "sweep=search", "sweep.max_trials=2", "optimizer.lr=interval(1e-3,1e-2)", "launch=slurm")


@pytest.fixture
def instant(slurm, tmp_path, monkeypatch):
    """A Slurm whose jobs end as they are submitted, with runs that have finished."""
    monkeypatch.setattr(execution, "ASK_SLURM_EVERY_S", 0.01)
    monkeypatch.setattr(schedule, "TRY_AGAIN_S", 0.01)
    ending = '{"status":"FINISHED","exit_code":0,"error":null,"time":1.0,"mirrored":null}'
    slurm(
        "sbatch",
        f"""test -e {tmp_path}/away && rm {tmp_path}/away && echo 'sbatch: error: Unable to contact' >&2 && exit 1
folder=$(dirname $2)
echo "$folder" >> {tmp_path}/submitted
touch $folder/logs/job-12.log
echo '{ending}' > $folder/end.json
echo 12""",
    )
    return tmp_path / "submitted"


def test_a_search_submits_a_job_for_each_turn_and_waits_for_a_controller_that_is_away(launch_here, instant, tmp_path):
    (tmp_path / "away").touch()
    done = launch_here(*SEARCH)
    assert done.code == 0, done.err
    assert "mvit: Slurm: error: Unable to contact; trying again for 30 minutes\n" in done.err
    assert len(instant.read_text().splitlines()) == 2


def test_a_trial_that_ended_while_nobody_followed_it_is_not_submitted_again(launch_here, instant, slurm, capfd):
    done = launch_here(*SEARCH, "freeze=true")
    assert done.code == 0, done.err
    (file,) = done.runs.glob("*/*/ledger.jsonl")
    assert main(["resume", str(file.parent)]) == 0
    first, second = trials_of(file.parent)
    assert len(instant.read_text().splitlines()) == 2
    first.end.unlink()  # its job goes on, and the process of the search is gone
    slurm("squeue", f"test -e {first.end} || echo 12 RUNNING; sleep 0.1; cp {second.end} {first.end}")
    write_job(second, Job(id="11", cluster=None))
    assert main(["resume", str(file.parent)]) == 0
    assert len(instant.read_text().splitlines()) == 2
    assert sweep_status(file.parent) == "FINISHED"


@pytest.mark.parametrize("after", ["step", "epoch"])
def test_what_runs_is_asked_and_what_waits_is_cancelled(submitted, slurm, tmp_path, capfd, after):
    first, second, _ = trials_of(submitted)
    on_another_machine(first, "12_0")
    on_another_machine(RunDir(submitted), "11")  # a search, which would start other trials
    slurm("squeue", f"test -e {tmp_path}/over || printf '12_0 RUNNING\\n12_1 PENDING\\n12_2 PENDING\\n'")
    slurm("scancel", f"echo $* >> {tmp_path}/asked; case $* in *USR2*) touch {tmp_path}/over;; esac")
    assert main(["stop", str(submitted), "--after", after]) == 0
    asked = (tmp_path / "asked").read_text().splitlines()
    assert asked == ["12_1 12_2", *(["--batch --signal=USR2 12_0"] if after == "step" else [])]
    assert read_stop(RunDir(submitted)) == WantedStop(reason=StopReason(kind="pause"), after_epoch=CURRENT_EPOCH)
    assert (read_stop(first) is not None) == (after == "epoch")
    assert read_stop(second) is None
    assert capfd.readouterr().err == ""


def test_a_job_that_has_just_started_is_not_said_to_stop_after_its_epoch(submitted, slurm, capfd):
    slurm("squeue", "echo 12_0 RUNNING")  # and its run is not
    assert main(["stop", str(submitted), "--after", "epoch"]) == 1
    assert capfd.readouterr() == ("", "mvit: job 12_0 has only just started; stop it again in a moment\n")
    record_end(trials_of(submitted)[0], "FINISHED", exit_code=0)  # and its job is leaving
    assert main(["stop", str(submitted), "--after", "epoch"]) == 0
    assert capfd.readouterr() == ("", "")


def test_where_sbatch_refuses_one_line_says_so_and_nothing_is_lost(launch_here, slurm, capfd):
    slurm("sbatch", "echo 'sbatch: error: invalid partition specified: x' >&2; exit 1")
    done = launch_here("-m", "seed=1,2", "launch=slurm", "launch.partition=x")
    assert done.code != 0
    assert done.err == "mvit: Slurm: error: invalid partition specified: x\n"
    (file,) = done.runs.glob("*/*/ledger.jsonl")
    slurm("sbatch", "echo 12")
    assert main(["resume", str(file.parent)]) == 0
    assert "mvit: job 12 of Slurm, an array of 2: " in capfd.readouterr().out
