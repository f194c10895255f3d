"""Scripts of jobs, executed by a shell as Slurm would; stand-ins take the place of Python and scontrol."""

import os
import signal
import subprocess
import time
from dataclasses import replace

import pytest

from mvit.config import SlurmLaunch
from mvit.parent.freeze import freeze, plan_launch
from mvit.parent.host import this_host
from mvit.parent.request.compose import compose
from mvit.parent.slurm.script import array_script, job_script
from mvit.rundir.paths import RunDir

RUN = """\
#!/bin/bash
touch "{room}/begun"
{trap}
for _ in $(seq 600); do sleep 0.05; done
"""
STOPS = "trap 'exit 75' USR1 USR2"


@pytest.fixture
def run(tmp_path):
    return freeze(
        plan_launch(compose(["launch=slurm"]), host=this_host()), tmp_path / "x/20261129-100000-abcd", made_of=({}, "")
    )


@pytest.fixture
def started(run, tmp_path, monkeypatch):
    """A function that starts a script whose Python is a stand-in."""
    python, scontrol = tmp_path / "python", tmp_path / "scontrol"
    scontrol.write_text(f"#!/bin/sh\necho $* > {tmp_path}/scontrol.asked\n")
    scontrol.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

    def start(*, trap=STOPS, array=False, env=None):
        python.write_text(RUN.format(room=tmp_path, trap=trap))
        python.chmod(0o755)
        host = replace(this_host(), python=str(python))
        assert isinstance(run.config.launch, SlurmLaunch)
        script = job_script(run, run.config.launch, host=host)
        if array:
            script = array_script(RunDir(tmp_path), {3: run}, host=host, at_once=1)
        (tmp_path / "job.sh").write_text(script)
        environment = {**os.environ, "SLURM_JOB_ID": "12", **(env or {})}
        process = subprocess.Popen(["bash", str(tmp_path / "job.sh")], env=environment)
        deadline = time.monotonic() + 10
        while not (tmp_path / "begun").exists():
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.02)
        time.sleep(0.1)  # until its trap is set
        return process

    return start


@pytest.mark.parametrize(
    ("number", "trap", "code", "requeued"),
    [
        (signal.SIGUSR1, STOPS, 0, True),  # its time limit is near, and the run has stopped
        (signal.SIGUSR1, "", 0, True),  # before the run could listen
        (signal.SIGUSR1, "trap 'exit 1' USR1", 1, False),  # it has failed meanwhile
        (signal.SIGUSR1, "trap 'exit 0' USR1", 0, False),  # it has finished meanwhile
        (signal.SIGUSR2, STOPS, 75, False),  # a person stops it
        (signal.SIGTERM, "trap 'exit 143' TERM", 143, False),
    ],
)
def test_a_job_is_queued_again_only_if_its_run_was_to_go_on(started, tmp_path, number, trap, code, requeued):
    process = started(trap=trap)
    process.send_signal(number)
    assert process.wait(20) == code
    asked = tmp_path / "scontrol.asked"
    assert (asked.read_text() if asked.exists() else None) == ("requeue 12\n" if requeued else None)


def test_a_task_of_an_array_is_queued_again_alone_and_has_its_own_log(started, run, tmp_path):
    """The last task of an array has the number of the array as its own."""
    process = started(array=True, env={"SLURM_ARRAY_JOB_ID": "12", "SLURM_ARRAY_TASK_ID": "3"})
    process.send_signal(signal.SIGUSR1)
    assert process.wait(20) == 0
    assert (tmp_path / "scontrol.asked").read_text() == "requeue 12_3\n"
    assert (run.folder.logs / "job-12_3.log").exists()
