"""Machines that are left out, and how a script says so."""

import time

import pytest

from mvit.config import SlurmLaunch
from mvit.parent.freeze import freeze, plan_launch
from mvit.parent.host import this_host
from mvit.parent.request.compose import compose
from mvit.parent.slurm.exclusion import excluded
from mvit.parent.slurm.script import job_script
from mvit.rundir.faults import Fault, read_faults, record_fault
from mvit.rundir.job import machine_name


@pytest.fixture
def run(tmp_path):
    def made(*overrides):
        raw = compose(["launch=slurm", *overrides])
        return freeze(plan_launch(raw, host=this_host()), tmp_path / "x/20261129-100000-abcd", made_of=({}, ""))

    return made


def fail(run, *faults):
    for number, (kind, machine) in enumerate(faults, 1):
        record_fault(run.folder, Fault(time=time.time(), attempt=number, kind=kind, machine=machine))


FAULTS = (
    ("hang", "n2"),
    ("nan", "n1"),
    ("comm", "n1"),
    ("killed", "n2"),
    ("nan", "n1"),
    ("killed", "n3"),
    ("comm", "n3"),
)


@pytest.mark.parametrize(
    ("after", "machines"), [("2", ["n2", "n3"]), ("1", ["n1", "n2", "n3"]), ("null", []), ("3", [])]
)
def test_machines_that_failed_as_often_are_left_out(run, after, machines):
    one = run(f"launch.exclude_after={after}")
    fail(one, *FAULTS)
    assert isinstance(one.config.launch, SlurmLaunch)
    assert excluded([one.folder], one.config.launch) == machines


def test_one_option_has_them_and_those_of_a_person(run):
    one = run("launch.options=['--exclude=n7','--gres=npu:8']")
    assert isinstance(one.config.launch, SlurmLaunch)
    script = job_script(one, one.config.launch, host=this_host(), without=["n2"])
    assert "#SBATCH --gres=npu:8\n#SBATCH --exclude=n7,n2\n" in script
    assert script.count("--exclude") == 1


def test_a_torn_line_costs_that_line(run):
    one = run()
    fail(one, ("hang", "n2"))
    with one.folder.faults.open("a") as file:
        file.write('{"time": 1.0, "att')
    fail(one, ("comm", "n2"))
    assert [fault.kind for fault in read_faults(one.folder)] == ["hang", "comm"]


def test_a_machine_is_called_as_slurm_calls_it(monkeypatch):
    monkeypatch.setenv("SLURMD_NODENAME", "c7")
    assert machine_name() == "c7"
