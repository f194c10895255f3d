"""Executing frozen runs: from threads, without a terminal, in slots; stopped one by one."""

import os
import subprocess
import sys
import threading
import time

import pytest
from safetensors.numpy import load_file

from mvit.data import dataset
from mvit.errors import RunDirError
from mvit.parent.execute import Silent, execute
from mvit.parent.host import this_host
from mvit.parent.plan import make_plan
from mvit.parent.slot import Slot
from mvit.parent.stop_request import StopRequest
from mvit.rundir import ownership
from mvit.rundir.checkpoints import tagged
from mvit.rundir.frozen import Run, write_run
from mvit.rundir.journal import JournalReader
from mvit.rundir.paths import create_run_dir
from mvit.rundir.state import run_status
from mvit.rundir.stop import read_stop
from tests.conftest import CHECKOUT, of_training
from tests.scene import RECIPE

pytestmark = pytest.mark.mindspore


@pytest.fixture
def freeze_run(configured, tmp_path):
    """Freezes a small run; one thread of kernels, as a slot of one core has it."""

    def make(name, *overrides):
        config = configured(*RECIPE, "tracking=none", "++topology.threads=1", *overrides)
        folder = create_run_dir(tmp_path / "two words" / name)
        run = Run(folder, config, make_plan(config, host=this_host(), facts=dataset.survey(config.data).facts))
        write_run(run)
        return run

    return make


def bits(run):
    """Journal without times, and the tensors of the last checkpoint."""
    numbers = [metrics for _, metrics in of_training(JournalReader(run.folder.journal).entries())]
    last = tagged(run.folder.checkpoints, "last")
    assert last is not None
    return numbers, {name: tensor.tobytes() for name, tensor in load_file(last.tensors).items()}


def steps(run):
    return [e["step"] for e in JournalReader(run.folder.journal).entries() if "train/loss" in e.get("metrics", {})]


def executed(runs, slots, stops):
    """Execute the runs at once, each from a thread of its own; the outcomes."""
    outcomes = {}

    def work(number):
        outcomes[number] = execute(runs[number], slot=slots[number], stop=stops[number], observer=Silent())

    threads = [threading.Thread(target=work, args=(number,)) for number in range(len(runs))]
    for thread in threads:
        thread.start()
    return outcomes, threads


@pytest.mark.long
def test_two_runs_at_once_from_two_threads_end_with_the_bits_they_have_alone(freeze_run):
    seeds = ("++seed=1", "++seed=2")
    alone = [freeze_run(f"alone-{number}", seed) for number, seed in enumerate(seeds)]
    for run in alone:
        assert execute(run, slot=Slot(), stop=StopRequest(), observer=Silent()).status == "FINISHED"
    together = [freeze_run(f"together-{number}", seed) for number, seed in enumerate(seeds)]
    cores = sorted(os.sched_getaffinity(0))
    slots = [Slot(cores=(cores[0],)), Slot(cores=(cores[-1],))]
    outcomes, threads = executed(together, slots, [StopRequest(), StopRequest()])
    for thread in threads:
        thread.join()
    assert [outcomes[number].status for number in range(2)] == ["FINISHED", "FINISHED"]
    for one, other in zip(alone, together, strict=True):
        assert bits(one) == bits(other)
    assert bits(together[0]) != bits(together[1])


def test_a_stop_request_ends_one_run_and_not_the_other(freeze_run):
    runs, stops = [freeze_run("stopped"), freeze_run("left")], [StopRequest(), StopRequest()]
    outcomes, threads = executed(runs, [Slot(), Slot()], stops)
    while not steps(runs[0])[3:]:
        time.sleep(0.05)
    stops[0].pause()
    for thread in threads:
        thread.join()
    assert (outcomes[0].status, outcomes[0].exit_code) == ("PAUSED", 75)
    assert outcomes[1].status == "FINISHED"
    assert [run_status(run.folder) for run in runs] == ["PAUSED", "FINISHED"]
    wanted = read_stop(runs[0].folder)
    assert wanted is not None
    assert (wanted.reason.kind, wanted.after_epoch) == ("pause", None)
    # What was paused goes on to the bits of the one that was not.
    assert execute(runs[0], slot=Slot(), stop=StopRequest(), observer=Silent()).status == "FINISHED"
    assert bits(runs[0]) == bits(runs[1])


def test_a_frozen_run_is_executed_under_nohup_from_anywhere_with_the_same_bits(freeze_run, tmp_path):
    here, elsewhere = freeze_run("here"), freeze_run("else where")
    assert execute(here, slot=Slot(), stop=StopRequest(), observer=Silent()).status == "FINISHED"
    command = ["nohup", sys.executable, "-m", "mvit", "run", str(elsewhere.folder.path), "--slot", "cores=0"]
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, stdin=subprocess.DEVNULL, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert bits(here) == bits(elsewhere)
    again = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert (again.returncode, again.stdout) == (2, "")
    assert "is FINISHED" in again.stderr


def test_a_run_is_executed_once_at_a_time(freeze_run):
    run = freeze_run("once")
    with ownership.owned(run.folder), pytest.raises(RunDirError, match="is still running in this process"):
        execute(run, slot=Slot(), stop=StopRequest(), observer=Silent())
    assert not run.folder.journal.exists()
