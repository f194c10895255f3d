"""Runs on two machines, which are namespaces of this one: real processes, real msrun, one shared folder."""

import signal
import subprocess

import pytest

from mvit.files import file_digest, read_json
from mvit.places import PROJECT
from mvit.rundir.ending import read_ending
from tests.conftest import of_training
from tests.machines import TwoNodes, needs_namespaces, two_machines
from tests.scene import RECIPE, Scene

pytestmark = [needs_namespaces, pytest.mark.mindspore, pytest.mark.timeout(600)]

SAME = (*RECIPE, "topology=cpu_2", "topology.threads=1")
"""One thread per process, as on one machine of two cores: with more, a process of its own machine would use both."""


@pytest.fixture(scope="module")
def machines():
    with two_machines() as both:
        yield both


def weights(folder):
    return file_digest(folder.checkpoints / f"{read_json(folder.checkpoints / 'last.json')['file']}.safetensors")


def test_a_run_that_is_stopped_and_resumed_on_two_machines_ends_with_the_bits_of_one_machine(machines, tmp_path):
    one = Scene(tmp_path / "one", recipe=(*SAME, "tracking=none"))
    one.launch()
    one.end()
    assert one.process.returncode == 0, one.err

    two = TwoNodes(machines, tmp_path / "two", SAME)
    two.launch()
    two.until_step(20)
    two.nodes[0].signal(signal.SIGINT)
    assert two.end() == (130, 130), two.said()
    ending = read_ending(two.folder)
    assert ending is not None
    assert ending.status == "KILLED"
    stopped = read_json(two.folder.checkpoints / "last.json")["file"]
    assert f"stopped after step {int(stopped.removeprefix('step-'))}" in two.said()
    two.resume()
    assert two.end() == (0, 0), two.said()
    assert two.leaves_nothing()

    assert weights(two.folder) == weights(one.folder)
    mine, theirs = ([(e["step"], m) for e, m in of_training(scene.journal())] for scene in (two, one))
    assert mine == theirs


def test_a_node_that_does_not_come_is_named_with_the_command_that_starts_it(machines, tmp_path):
    two = TwoNodes(machines, tmp_path, SAME)
    two.lead("launch.py", f"runs_dir={tmp_path}/runs", "topology.nodes=2", "limits.join_s=4", *SAME, "tracking=none")
    assert two.nodes[0].wait() == 1
    command = f"python -m mvit run {two.folder.path} --node-rank 1"
    (line,) = [line for line in two.said().splitlines() if "did not report within limits.join_s=4" in line]
    assert "node 1 did not report" in line
    assert command in line
    assert "10.77.0.1" in line


def test_a_node_of_another_commit_is_refused_on_both(machines, tmp_path):
    other = tmp_path / "checkout"
    subprocess.run(["git", "clone", "-q", str(PROJECT), str(other)], check=True)
    author = ("-c", "user.name=a", "-c", "user.email=a@example.org")
    subprocess.run(["git", *author, "commit", "-q", "--allow-empty", "-m", "another"], cwd=other, check=True)
    two = TwoNodes(machines, tmp_path, SAME)
    two.lead("launch.py", f"runs_dir={tmp_path}/runs", "topology.nodes=2", *SAME, "tracking=none")
    two.until(lambda: "start there: " in two.said())
    two.join(cwd=other)
    assert two.end() == (1, 1)
    for node in two.nodes:
        assert f"node 1 ({machines[1].name}) has commit " in node.said()
        assert "make them the same" in node.said()


def test_a_node_that_finds_no_leader_says_so(machines, tmp_path):
    two = TwoNodes(machines, tmp_path, SAME)
    two.lead("launch.py", f"runs_dir={tmp_path}/runs", "topology.nodes=2", "freeze=true", "limits.join_s=3", *SAME)
    assert two.nodes[0].wait() == 0
    two.join()
    assert two.nodes[1].wait() == 1
    assert "no sign of node 0" in two.nodes[1].said()
    assert "is this the same folder?" in two.nodes[1].said()
