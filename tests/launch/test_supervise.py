"""Supervision of real processes; a stand-in for msrun shows failures that the real one cannot be made to show."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from mvit import rundir
from mvit.data import dataset
from mvit.launch import supervise
from mvit.launch.plan import make_plan
from mvit.process import MARK, marked, process_start
from tests.launch.test_plan import HOST

SAY = """
import json, os, subprocess, sys, time
from pathlib import Path
folder = Path(sys.argv[1])
def status(rank, pid, stage="step", error=None):
    started = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    content = {"rank": rank, "pid": pid, "started": started, "stage": stage, "step": 3, "error": error, "time": 0}
    (folder / "status" / f"{rank}.json").write_text(json.dumps(content))
def error(message, at):
    return {"type": "ValueError", "message": message, "where": "mvit/x.py:1", "stage": "step", "time": at}
"""


@pytest.fixture
def plan_of(tmp_path, configured):
    """A run folder, and a plan whose command is a Python program that gets the folder as its argument."""

    def make(program):
        config = configured()
        folder = rundir.create(tmp_path / "run")
        script = tmp_path / "program.py"
        script.write_text(SAY + program)
        plan = make_plan(config, host=HOST, facts=dataset.look(config.data), folder=folder.path)
        argv = (sys.executable, str(script), str(folder.path))
        return plan.model_copy(update={"argv": argv, "env": {}}), folder

    return make


def cause(outcome):
    assert outcome.failure is not None
    return outcome.failure


@pytest.fixture(autouse=True)
def short_grace(monkeypatch):
    monkeypatch.setattr(supervise, "GRACE_S", 0.3)
    monkeypatch.setattr(supervise, "POLL_S", 0.05)


def supervised(plan, folder):
    with supervise.stopping() as stop:
        return supervise.run(plan, folder, watch=lambda _: None, stop=stop)


def test_finished_means_exit_code_0_and_a_result(plan_of):
    assert supervised(*plan_of("(folder / 'result.json').write_text('{}')")).status == "FINISHED"


def test_exit_code_0_without_a_result_is_a_failure(plan_of):
    outcome = supervised(*plan_of(""))
    assert (outcome.status, outcome.exit_code) == ("FAILED", 1)
    assert cause(outcome).message == "ended with exit code 0 but wrote no result"


def test_a_result_does_not_excuse_an_exit_code(plan_of):
    outcome = supervised(*plan_of("(folder / 'result.json').write_text('{}'); sys.exit(3)"))
    assert cause(outcome).message == "ended with exit code 3"


def test_a_signal_is_named(plan_of):
    outcome = supervised(*plan_of("os.kill(os.getpid(), 9)"))
    assert cause(outcome).message == "ended by signal 9 (SIGKILL)"


def test_a_command_that_cannot_be_started_is_a_failure(plan_of):
    plan, folder = plan_of("")
    outcome = supervised(plan.model_copy(update={"argv": ("/nowhere/msrun",)}), folder)
    assert cause(outcome).message == "cannot start /nowhere/msrun: No such file or directory"


def test_the_first_cause_is_the_earliest_error_not_the_lowest_rank(plan_of):
    program = """
status(0, os.getpid(), "failed", error("came second", 2.0))
status(1, os.getpid(), "failed", error("came first", 1.0))
sys.exit(1)
"""
    outcome = supervised(*plan_of(program))
    assert cause(outcome).rank == 1
    assert next(cause(outcome).lines()) == "failed (rank 1, step) at mvit/x.py:1: ValueError: came first"


def test_an_msrun_that_waits_after_a_failed_worker_is_ended_with_its_children(plan_of):
    program = """
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
(folder / "child").write_text(str(child.pid))
status(1, os.getpid(), "failed", error("broken", 1.0))
time.sleep(600)
"""
    plan, folder = plan_of(program)
    began = time.monotonic()
    outcome = supervised(plan, folder)
    took = time.monotonic() - began
    print(f"from a worker's failure to the parent's end: {took:.1f} s")
    assert cause(outcome).message == "ValueError: broken"
    assert process_start(int((folder.path / "child").read_text())) is None


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_to_the_parent_stops_every_process(plan_of, number, code):
    program = """
import signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
stubborn = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
child = subprocess.Popen([sys.executable, "-c", stubborn], start_new_session=True)
(folder / "child").write_text(str(child.pid))
time.sleep(600)
"""
    plan, folder = plan_of(program)

    def stop():
        while not (folder.path / "child").exists():
            time.sleep(0.05)
        os.kill(os.getpid(), number)

    before = signal.getsignal(number)
    threading.Thread(target=stop).start()
    outcome = supervised(plan, folder)
    assert (outcome.status, outcome.exit_code) == ("KILLED", code)
    assert process_start(int((folder.path / "child").read_text())) is None
    assert signal.getsignal(number) == before


def test_a_watcher_that_breaks_leaves_no_process(plan_of):
    plan, folder = plan_of("(folder / 'child').write_text(str(os.getpid())); time.sleep(600)")

    def watch(_):
        if (folder.path / "child").exists():
            raise OSError("no space left on device")

    with pytest.raises(OSError, match="no space"):
        supervise.run(plan, folder, watch=watch, stop=[])
    assert process_start(int((folder.path / "child").read_text())) is None


@pytest.mark.mindspore
def test_workers_end_when_their_launcher_is_killed(tmp_path):
    parent, found = launched_on_two_workers(tmp_path)
    parent.kill()
    parent.communicate()
    deadline = time.monotonic() + 30
    while any(process_start(pid) for pid in found) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert [process_start(pid) for pid in found] == [None] * len(found)


@pytest.mark.mindspore
def test_a_worker_that_is_killed_is_named(tmp_path):
    parent, found = launched_on_two_workers(tmp_path)
    status = json.loads(next(tmp_path.glob("*/*/status/1.json")).read_text())
    os.kill(status["pid"], signal.SIGKILL)
    began = time.monotonic()
    _, err = parent.communicate(timeout=120)
    print(f"from the end of a worker to that of the launcher: {time.monotonic() - began:.1f} s")
    assert parent.returncode == 1
    assert "mvit: failed (rank 1, " in err
    assert "gone without a word" in err
    assert [process_start(pid) for pid in found] == [None] * len(found)


@pytest.mark.mindspore
def test_ctrl_c_ends_two_real_workers_and_says_killed(tmp_path):
    parent, found = launched_on_two_workers(tmp_path)
    parent.send_signal(signal.SIGINT)
    began = time.monotonic()
    out, err = parent.communicate(timeout=60)
    print(f"from Ctrl-C to the end: {time.monotonic() - began:.1f} s")
    assert parent.returncode == 130
    assert "mvit: stopped by signal 2" in err
    assert "mvit: KILLED" in out
    assert [process_start(pid) for pid in found] == [None] * len(found)


def launched_on_two_workers(runs):
    """A launch on two workers that have said who they are, and the pids of all its processes."""
    checkout = Path(__file__).resolve().parents[2]
    command = [sys.executable, str(checkout / "launch.py"), "topology=cpu_2", "tracking=none", f"runs_dir={runs}"]
    parent = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while len(list(runs.glob("*/*/status/[!.]*.json"))) < 3:  # two workers and msrun's scheduler
        assert time.monotonic() < deadline
        time.sleep(0.2)
    status = json.loads(next(runs.glob("*/*/status/0.json")).read_text())
    environment = Path(f"/proc/{status['pid']}/environ").read_bytes().split(b"\0")
    (mark,) = (entry.decode().partition("=")[2] for entry in environment if entry.startswith(MARK.encode()))
    found = marked(mark)
    assert len(found) >= 4
    return parent, found
