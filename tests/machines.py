"""Machines: namespaces of this one, each with its own network, processes and host name, on the same disk."""

import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from mvit.files import read_json
from mvit.places import PROJECT
from mvit.process import process_start
from mvit.rundir.journal import JournalReader
from mvit.rundir.paths import RunDir

needs_namespaces = pytest.mark.skipif(
    shutil.which("ip") is None or os.geteuid() != 0, reason="needs root and iproute2: apt install iproute2"
)


class Machine:
    """One of two that are linked. Processes are started in it, and seen from outside by their pids there."""

    def __init__(self, name: str, init: int, device: str) -> None:
        self.name, self.init, self._device = name, init, device
        self.programs: list[Program] = []

    def start(self, *command: str, cwd: Path = PROJECT, log: Path, env: Mapping[str, str] | None = None) -> "Program":
        """A program in this machine, whose output goes to the log."""
        enter = ("nsenter", "--target", str(self.init), "--net", "--uts", "--pid", "--mount", "--")
        enter = (*enter, "env", "-C", str(cwd))
        with log.open("ab") as out:
            process = subprocess.Popen(
                [*enter, *command], env={**os.environ, **(env or {})}, stdout=out, stderr=out,
                stdin=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip
        self.programs.append(Program(process, log))
        return self.programs[-1]

    def processes(self) -> Iterator[Path]:
        """What lives in it, as folders of /proc here."""
        space = Path(f"/proc/{self.init}/ns/pid").readlink()
        for entry in Path("/proc").iterdir():
            with suppress(OSError):
                if entry.name.isdigit() and (entry / "ns/pid").readlink() == space:
                    yield entry

    def set_link(self, state: str) -> None:
        """Cut the cable, `down`, or plug it in again, `up`."""
        enter = ("nsenter", "--target", str(self.init), "--net", "--")
        subprocess.run([*enter, "ip", "link", "set", self._device, state], check=True)


class Program:
    """Behind nsenter, which ends as it does."""

    def __init__(self, process: "subprocess.Popen[bytes]", log: Path) -> None:
        self.process, self.log = process, log

    @property
    def pid(self) -> int:
        return _child(self.process.pid)

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def wait(self, timeout_s: float = 120) -> int:
        return self.process.wait(timeout_s)

    def said(self) -> str:
        return self.log.read_text(errors="replace")


def _child(pid: int) -> int:
    """The one child of a process, once it is there."""
    path, deadline = Path(f"/proc/{pid}/task/{pid}/children"), time.monotonic() + 10
    while not (found := path.read_text().split()):
        assert time.monotonic() < deadline, f"process {pid} has no child"
        time.sleep(0.02)
    return int(found[0])


@contextmanager
def two_machines():
    """Two, at 10.77.0.1 and 10.77.0.2, that end with the context, and all in them with it."""
    tag = secrets.token_hex(2)
    with ExitStack() as stack:
        machines: list[Machine] = []
        stack.callback(lambda: [program.wait() for machine in machines for program in machine.programs])
        for number in range(2):
            name = f"node{number}-{tag}"
            words = ("unshare", "--net", "--uts", "--pid", "--fork", "--kill-child", "--mount", "--mount-proc")
            # Waits for orphans too, as the first process of a machine does.
            script = ('hostname "$0"; sleep infinity & wait', name)
            holder = subprocess.Popen([*words, "bash", "-c", *script], stdin=subprocess.DEVNULL, start_new_session=True)
            stack.callback(holder.wait)
            stack.callback(holder.kill)
            machines.append(Machine(name, _child(holder.pid), f"v{tag}{number}"))
        first, second = machines
        _ip("link", "add", first._device, "type", "veth", "peer", "name", second._device)
        for number, machine in enumerate(machines):
            _ip("link", "set", machine._device, "netns", str(machine.init))
            enter = ("nsenter", "--target", str(machine.init), "--net", "--", "ip")
            for words in (
                ("addr", "add", f"10.77.0.{number + 1}/24", "dev", machine._device),
                ("link", "set", machine._device, "up"),
                ("link", "set", "lo", "up"),
            ):
                subprocess.run([*enter, *words], check=True)
        yield first, second


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


class TwoNodes:
    """A run on two machines, as a person starts it, and what can be done to it."""

    def __init__(self, machines: tuple[Machine, Machine], path: Path, recipe: tuple[str, ...]) -> None:
        path.mkdir(exist_ok=True)
        self.machines, self.path, self.recipe = machines, path, recipe
        self.runs = path / "runs"
        self.uri = f"sqlite:///{path}/mlflow.db"
        self.environment = {"MLFLOW_TRACKING_URI": self.uri}
        self.nodes: list[Program] = []

    def launch(self, *overrides: str) -> None:
        """Both nodes: the launch on the first, and on the second the command that it tells."""
        self.lead("launch.py", f"runs_dir={self.runs}", "topology.nodes=2", *self.recipe, *overrides)
        self.until(lambda: "start there: " in self.nodes[0].said())
        self.join()

    def resume(self, *overrides: str) -> None:
        self.lead("-m", "mvit", "resume", str(self.folder.path), *overrides)
        self.join()

    def fork(self, *overrides: str) -> list:
        """The journal of a run on this machine alone that goes on from here."""
        words = (sys.executable, "-m", "mvit", "resume", str(self.folder.path), "--fork", *overrides)
        before = set(self.runs.glob("*/*/run.json"))
        subprocess.run(words, cwd=PROJECT, env={**os.environ, **self.environment}, check=True)
        (made,) = set(self.runs.glob("*/*/run.json")) - before
        return list(JournalReader(RunDir(made.parent).journal).entries())

    def lead(self, *words: str) -> None:
        """Node 0 alone."""
        log = self.path / f"node-0-{len(list(self.path.glob('node-0-*')))}.log"
        self.nodes = [self.machines[0].start(sys.executable, *words, log=log, env=self.environment)]

    def join(self, cwd: Path = PROJECT) -> None:
        """Node 1, from a checkout."""
        log = self.path / f"node-1-{len(list(self.path.glob('node-1-*')))}.log"
        words = ("-m", "mvit", "run", str(self.folder.path), "--node-rank", "1")
        self.nodes.append(self.machines[1].start(sys.executable, *words, cwd=cwd, log=log))

    @property
    def folder(self) -> RunDir:
        """The first one."""
        return RunDir(min(path.parent for path in self.runs.glob("*/*/run.json")))

    def until(self, holds, timeout_s: float = 90) -> None:
        deadline = time.monotonic() + timeout_s
        while not holds():
            assert time.monotonic() < deadline, "\n".join(node.said() for node in self.nodes)
            time.sleep(0.1)

    def until_step(self, step: int) -> None:
        self.until(lambda: any(entry.get("step", 0) >= step for entry in self.journal()))

    def journal(self) -> list:
        with suppress(ValueError):
            return list(JournalReader(self.folder.journal).entries())
        return []

    def rank(self, rank: int) -> int:
        """The pid of a rank's process, seen from here."""
        inside = read_json(self.folder.status / f"{rank}.json")["pid"]
        for entry in self.machines[rank].processes():
            with suppress(OSError):
                if f"NSpid:\t{entry.name}\t{inside}\n" in (entry / "status").read_text():
                    return int(entry.name)
        raise AssertionError(f"rank {rank} has no process")

    def kill_rank(self, rank: int, *, wait: bool = False) -> None:
        """SIGKILL, at once or when it trains."""
        path = self.folder.status / f"{rank}.json"
        self.until(lambda: not wait or (path.exists() and read_json(path)["stage"] == "step"))
        os.kill(self.rank(rank), signal.SIGKILL)

    def end(self, timeout_s: float = 120) -> tuple[int, int]:
        """The exit codes, once both have ended."""
        first, second = (node.wait(timeout_s) for node in self.nodes)
        return first, second

    def said(self) -> str:
        return "\n---\n".join(node.said() for node in self.nodes)

    def leaves_nothing(self) -> bool:
        """Whether no worker is left in either machine."""
        for machine in self.machines:
            for entry in machine.processes():
                with suppress(OSError):
                    is_worker = b"mvit.worker.main" in (entry / "cmdline").read_bytes().split(b"\0")
                    if is_worker and process_start(int(entry.name)) is not None:
                        return False
        return True
