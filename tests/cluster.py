"""A real Slurm on two machines, which are namespaces of this one."""

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.machines import Machine, two_machines

needs_slurm = pytest.mark.skipif(
    any(shutil.which(name) is None for name in ("ip", "slurmctld", "slurmd", "munged")) or os.geteuid() != 0,
    reason="needs root, iproute2 and Slurm: apt install iproute2 slurm-wlm munge",
)

# Jobs start at once and come back at once; no control groups, which namespaces hide.
CONFIGURATION = """\
ClusterName=tests
SlurmctldHost={first}(10.77.0.1)
AuthInfo=socket={room}/munge.socket,cred_expire=10
SlurmUser=root
StateSaveLocation={room}/state
SlurmdSpoolDir={room}/spool.%n
SlurmctldPidFile={room}/slurmctld.pid
SlurmdPidFile={room}/slurmd.%n.pid
SlurmctldLogFile={room}/slurmctld.log
SlurmdLogFile={room}/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobCompType=jobcomp/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=batch_sched_delay=0,sched_interval=1,sched_min_interval=10000,bf_interval=1
KillWait=15
MinJobAge=300
NodeName=c0 NodeHostname={first} NodeAddr=10.77.0.1 Port=26818 CPUs=2
NodeName=c1 NodeHostname={second} NodeAddr=10.77.0.2 Port=26818 CPUs=2
PartitionName=tests Nodes=ALL Default=YES
"""


class Cluster:
    """Its first machine is where people log in."""

    def __init__(self, machines: tuple[Machine, Machine], room: Path) -> None:
        self.machines, self.room = machines, room
        self.environment = {"SLURM_CONF": str(room / "slurm.conf")}

    def run(self, *command: str) -> "subprocess.CompletedProcess[str]":
        """A command on the first machine, to its end."""
        log = self.room / "said"
        log.write_bytes(b"")
        program = self.machines[0].start(*command, log=log, env=self.environment)
        code = program.wait(300)
        return subprocess.CompletedProcess(command, code, program.said(), "")

    def stop_controller(self) -> None:
        """With its state saved: one that is killed forgets the last seconds, and drains nodes that know better."""
        self.run("scontrol", "shutdown", "slurmctld")

    def kill_controller(self, *, knows: Path) -> None:
        """Once it has saved what it knew when this file was written: it does so every few seconds."""
        state = self.room / "state/job_state"
        _until(lambda: state.exists() and state.stat().st_mtime > knows.stat().st_mtime + 0.5, lambda: _logs(self.room))
        assert self.run("pkill", "-KILL", "slurmctld").returncode == 0

    def start_controller(self) -> None:
        self.run("slurmctld", "-i")


@contextmanager
def slurm(room: Path) -> Iterator[Cluster]:
    """Up while the context is."""
    with two_machines() as machines:
        cluster = Cluster(machines, room)
        names = {"first": machines[0].name, "second": machines[1].name}
        (room / "slurm.conf").write_text(CONFIGURATION.format(room=room, **names))
        (room / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\n")
        for name in ("state", "spool.c0", "spool.c1"):
            (room / name).mkdir()
        key = room / "munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o400)
        files = {
            "key-file": key,
            **{name: room / f"munge.{name[:-5]}" for name in ("pid-file", "log-file", "seed-file")},
        }
        words = [f"--{name}={path}" for name, path in files.items()]
        munged = machines[0].start(
            "munged", "--force", "--foreground", f"--socket={room}/munge.socket", *words, log=room / "munged.said"
        )
        _until(lambda: (room / "munge.socket").exists(), munged.said)
        cluster.run("slurmctld", "-c")
        for number, machine in enumerate(machines):
            program = machine.start("slurmd", "-N", f"c{number}", log=room / "slurmd.said", env=cluster.environment)
            assert program.wait(20) == 0, program.said()
        _until(lambda: cluster.run("sinfo", "-h", "-t", "idle", "-o", "%D").stdout.strip() == "2", lambda: _logs(room))
        yield cluster


def _logs(room: Path) -> str:
    return "\n".join(path.read_text() for path in room.glob("*.log"))


def _until(holds, why) -> None:
    deadline = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < deadline, why()
        time.sleep(0.1)
