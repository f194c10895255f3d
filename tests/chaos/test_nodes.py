"""Two machines, and what happens when one of them loses a process, its launcher, or the other one."""

import os
import signal
import sys
import time

import pytest

from mvit.files import file_digest, read_json
from mvit.parent.tracking.store import connect
from mvit.rundir.ending import read_ending
from mvit.rundir.journal import JournalReader
from mvit.rundir.paths import RunDir
from mvit.rundir.state import run_status
from mvit.rundir.status import read_workers
from mvit.rundir.tracking import read_record
from tests.cluster import needs_slurm, slurm
from tests.conftest import of_training
from tests.machines import TwoNodes, needs_namespaces, two_machines
from tests.scene import RECIPE

pytestmark = [needs_namespaces, pytest.mark.chaos, pytest.mark.mindspore, pytest.mark.timeout(600)]

LONG = (*RECIPE, "topology=cpu_2", "topology.threads=1", "train.epochs=30")
"""Minutes, where nothing happens to it."""


@pytest.fixture
def training(tmp_path):
    """A run on two machines in the midst of its steps."""
    with two_machines() as machines:
        nodes = TwoNodes(machines, tmp_path, LONG)
        nodes.launch()
        nodes.until_step(15)
        yield nodes


def tags_in_mlflow(nodes):
    record = read_record(nodes.folder)
    assert record is not None
    assert record.run_id is not None
    run = connect(nodes.uri).get_run(record.run_id)
    return run.info.status, run.data.tags


@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_that_is_killed_ends_both_with_that_cause_and_the_run_goes_on(training, rank):
    training.kill_rank(rank)
    began = time.monotonic()
    assert training.end() == (1, 1), training.said()
    print(f"rank {rank} killed: both launchers had ended after {time.monotonic() - began:.0f} s")
    failure = read_json(training.folder.error)
    assert (failure["kind"], failure["rank"]) == ("killed", rank), training.said()
    status, tags = tags_in_mlflow(training)
    assert status == "FAILED"
    assert failure["message"] in tags["error"]
    assert all(failure["message"] in node.said() for node in training.nodes)
    assert training.leaves_nothing()
    training.resume("train.max_restarts=1")
    training.until(lambda: "attempt 2" in training.nodes[1].said())
    training.kill_rank(rank, wait=True)
    training.until(lambda: "attempt 3" in training.nodes[1].said())
    training.nodes[1].signal(signal.SIGTERM)
    assert training.end() == (143, 143), training.said()
    assert run_status(training.folder) == "KILLED"


@pytest.mark.parametrize("node", [0, 1])
def test_a_launcher_that_is_killed_ends_the_other_node(training, node):
    training.nodes[node].signal(signal.SIGKILL)
    began = time.monotonic()
    codes = training.end()
    print(f"the launcher of node {node} killed: the other had ended after {time.monotonic() - began:.0f} s")
    assert codes[1 - node] == 1, training.said()
    assert training.leaves_nothing()
    if node == 1:
        assert read_json(training.folder.error)["kind"] in ("comm", "killed")
        assert run_status(training.folder) == "FAILED"
    else:
        assert read_ending(training.folder) is None
    training.resume()
    training.until(lambda: "attempt 2" in training.nodes[1].said())
    training.nodes[0].signal(signal.SIGINT)
    assert training.end() == (130, 130), training.said()
    assert training.leaves_nothing()


def test_a_link_that_is_cut_for_6_s_costs_nothing(training):
    steps = max(entry.get("step", 0) for entry in training.journal())
    training.machines[1].set_link("down")
    time.sleep(6)
    training.machines[1].set_link("up")
    training.until_step(steps + 60)
    training.nodes[0].signal(signal.SIGINT)
    assert training.end() == (130, 130), training.said()


def test_a_link_that_is_cut_for_good_ends_both_with_one_cause(training):
    training.machines[1].set_link("down")
    began = time.monotonic()
    assert training.end() == (1, 1), training.said()
    seconds = time.monotonic() - began
    print(f"the link cut: both launchers had ended after {seconds:.0f} s")
    failure = read_json(training.folder.error)
    assert failure["kind"] == "comm", training.said()
    assert all(failure["message"] in node.said() for node in training.nodes)
    status, tags = tags_in_mlflow(training)
    assert status == "FAILED"
    assert failure["message"] in tags["error"]
    assert training.leaves_nothing()


def test_one_machine_goes_on_from_where_two_were_stopped_with_the_same_losses(tmp_path):
    recipe = (*RECIPE, "topology=cpu_2", "topology.threads=1")
    with two_machines() as machines:
        two = TwoNodes(machines, tmp_path, recipe)
        two.launch()
        two.until_step(20)
        two.nodes[0].signal(signal.SIGINT)
        assert two.end() == (130, 130), two.said()
        alone = two.fork("topology.nodes=1", "topology.workers=1", "train.accumulation=2")
        two.resume()
        assert two.end() == (0, 0), two.said()
    together, after = (
        {entry["step"]: metrics["train/loss"] for entry, metrics in of_training(entries) if "train/loss" in metrics}
        for entries in (two.journal(), alone)
    )
    print(f"one machine with two micro-batches, from where two were stopped: {len(after)} of {len(together)} losses")
    assert len(after) > 20
    assert after == {step: together[step] for step in after}


def test_the_default_job_on_two_machines_ends_with_the_bits_of_one(tmp_path):
    recipe = ("topology=cpu_2", "topology.threads=1", "tracking=none")
    with two_machines() as machines:
        two = TwoNodes(machines, tmp_path / "two", recipe)
        two.launch()
        assert two.end(300) == (0, 0), two.said()
        one = TwoNodes(machines, tmp_path / "one", recipe)
        one.lead("launch.py", f"runs_dir={one.runs}", *recipe)
        assert one.nodes[0].wait(300) == 0, one.said()
    digests = [file_digest(best.folder.checkpoints / f"{best_of(best.folder)}.safetensors") for best in (two, one)]
    assert digests[0] == digests[1]
    losses = [[m["train/loss"] for _, m in of_training(n.journal()) if "train/loss" in m] for n in (two, one)]
    assert losses[0] == losses[1]
    accuracy = read_json(two.folder.result)["metrics"]["best/val_acc1"]
    print(f"the default job on two machines: {accuracy:.2f} %, {len(losses[0])} losses, and the weights of one machine")
    assert accuracy >= 99.0


def best_of(folder):
    return read_json(folder.checkpoints / "best.json")["file"]


def test_the_other_machine_is_started_through_ssh_and_ended_with_the_run(tmp_path, monkeypatch):
    # Stands for ssh: the test executes on the second machine what it is asked to.
    ssh = tmp_path / "bin" / "ssh"
    ssh.parent.mkdir()
    ssh.write_text(f'#!/bin/sh\nfor word; do :; done\nprintf %s "$word" > {tmp_path}/asked\nexec sleep 600\n')
    ssh.chmod(0o755)
    monkeypatch.setenv("PATH", f"{ssh.parent}:{os.environ['PATH']}")
    with two_machines() as machines:
        nodes = TwoNodes(machines, tmp_path, (*RECIPE, "topology=cpu_2", "topology.threads=1"))
        nodes.lead("launch.py", f"runs_dir={nodes.runs}", "topology.nodes=2", "topology.hosts=[a,b]", *nodes.recipe)
        nodes.until((tmp_path / "asked").exists)
        asked = (tmp_path / "asked").read_text()
        nodes.nodes.append(machines[1].start("sh", "-c", asked, log=tmp_path / "there.log"))
        assert nodes.end() == (0, 0), nodes.said()
        assert "start there" not in nodes.said()
        assert not [entry for entry in machines[0].processes() if b"sleep\x00600" in (entry / "cmdline").read_bytes()]


@needs_slurm
def test_a_job_of_two_nodes_trains_under_slurm(tmp_path):
    with slurm(tmp_path) as cluster:
        words = (sys.executable, "launch.py", f"runs_dir={tmp_path}/runs", *RECIPE, "launch=slurm", "tracking=none")
        done = cluster.run(*words, "topology=cpu_2", "topology.threads=1", "topology.nodes=2")
        assert done.returncode == 0, done.stdout
        (folder,) = (RunDir(path.parent) for path in tmp_path.glob("runs/*/*/run.json"))
        deadline = time.monotonic() + 200
        while not (ending := read_ending(folder)):
            assert time.monotonic() < deadline, [path.read_text() for path in folder.logs.glob("job-*")]
            time.sleep(0.5)
        assert ending.status == "FINISHED"
        assert {worker.host for worker in read_workers(folder)} == {machine.name for machine in cluster.machines}


@needs_slurm
def test_two_minutes_before_its_time_limit_a_job_keeps_the_current_step_and_is_queued_again(tmp_path):
    with slurm(tmp_path) as cluster:
        words = (sys.executable, "launch.py", f"runs_dir={tmp_path}/runs", *RECIPE, "launch=slurm", "tracking=none")
        more = ("launch.time_limit=3", "launch.stop_before_s=120", "train.epochs=4000")
        done = cluster.run(*words, *more, "train.checkpoint_every_steps=100000", "train.eval_every_epochs=1000")
        assert done.returncode == 0, done.stdout
        (folder,) = (RunDir(path.parent) for path in tmp_path.glob("runs/*/*/run.json"))
        deadline = time.monotonic() + 200
        while not (resumed := [e for e in JournalReader(folder.journal).entries() if e.get("event") == "resumed"]):
            assert time.monotonic() < deadline, [path.read_text() for path in folder.logs.glob("job-*")]
            time.sleep(0.5)
        entries = list(JournalReader(folder.journal).entries())
        steps = [entry["step"] for entry in entries[: entries.index(resumed[0])] if "step" in entry]
        print(f"queued again near its limit: went on after step {resumed[0]['step']}, the last one of {max(steps)}")
        assert resumed[0]["step"] == max(steps) > 100
        stopped = cluster.run(sys.executable, "-m", "mvit", "stop", str(folder.path))
        assert stopped.returncode == 0, stopped.stdout
        assert run_status(folder) == "KILLED"
