"""A run in the background that can be disturbed, and what must be true once it is over.

Every scenario names the status it expects. `Scene.holds` then looks at all else: what the run folder and MLflow say,
exit code, processes, port, checkpoints.
"""

import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from mvit.files import file_digest, read_json
from mvit.parent.host import free_port
from mvit.process import MARK, process_start
from mvit.rundir.ending import read_ending
from mvit.rundir.journal import JournalReader
from mvit.rundir.paths import RunDir
from mvit.rundir.status import WorkerStatus, read_statuses
from tests.conftest import CHECKOUT, TINY

# 80 steps of some 40 ms; a checkpoint of 7 MB after every tenth.
TRAIN = ("train.epochs=4", "train.global_batch_size=8", "train.eval_batch_size=8", "train.log_every_steps=1")
TRAIN = (*TINY, "data.image_size=32", *TRAIN, "train.checkpoint_every_steps=10")
RECIPE = (*TRAIN, "data=synthetic", "data.num_train=160", "data.num_val=50", "data.classes=7")
STEPS = 80

CLOSE_ORPHANS = """
import sys, threading
from pathlib import Path
from mvit.parent import orphans
orphans.close(Path(sys.argv[1]))
for thread in threading.enumerate():
    if thread.name == "orphans":
        thread.join()
"""
"""What every launch begins with, without the launch."""
SYNC_LATER = "later: python -m mvit sync"


class Scene:
    """A place for one run and its store. Knows every process that was seen, by pid and start time."""

    def __init__(self, path: Path, *, recipe: tuple[str, ...]) -> None:
        path.mkdir(exist_ok=True)
        self.path, self.runs, self.recipe = path, path / "runs", recipe
        self.uri = f"sqlite:///{path}/mlflow.db"
        self.port = free_port()
        self.seen: set[tuple[int, int]] = set()
        self.process: subprocess.Popen[bytes]
        self.mark = ""
        self.calls = 0

    # --- what a person types

    def launch(self, *overrides: str, **env: str) -> "Scene":
        return self._start([str(CHECKOUT / "launch.py"), f"runs_dir={self.runs}", *self.recipe, *overrides], env)

    def resume(self, *arguments: str, **env: str) -> "Scene":
        return self._start(["-m", "mvit", "resume", str(self.folder.path), *arguments], env)

    def call(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """A command that is waited for."""
        command, env = [sys.executable, *arguments], {**os.environ, "MLFLOW_TRACKING_URI": self.uri}
        return subprocess.run(command, capture_output=True, text=True, env=env, cwd=CHECKOUT, timeout=200, check=False)

    def sync(self) -> subprocess.CompletedProcess[str]:
        return self.call("-m", "mvit", "sync", str(self.folder.path))

    def close_orphans(self) -> str:
        """What the next launch says of orphans. Where it waits in vain for MLflow, the one after it tries again."""
        said = ""
        for _ in range(3):
            said += self.call("-c", CLOSE_ORPHANS, str(self.runs)).stdout
            folders = [RunDir(file.parent) for file in self.runs.rglob("tracking.json")]
            if all(ending.mirrored for folder in folders if (ending := read_ending(folder))):
                break
        return said

    def _start(self, command: list[str], env: dict[str, str]) -> "Scene":
        self.calls += 1
        env = {**os.environ, "MLFLOW_TRACKING_URI": self.uri, "MVIT_MASTER_PORT": str(self.port), **env}
        with self._output("out").open("w") as out, self._output("err").open("w") as err:
            command = [sys.executable, *command]
            self.process = subprocess.Popen(command, stdout=out, stderr=err, env=env, cwd=CHECKOUT)
        self.mark = f"{MARK}={self.process.pid}:{process_start(self.process.pid)}:"
        return self

    def _output(self, name: str) -> Path:
        return self.path / f"{name}-{self.calls}"

    @property
    def out(self) -> str:
        return self._output("out").read_text()

    @property
    def err(self) -> str:
        return self._output("err").read_text()

    # --- what is seen meanwhile

    @property
    def folder(self) -> RunDir:
        """The one run folder."""
        (found,) = self.runs.glob("*/*/run.json")
        return RunDir(found.parent)

    def statuses(self) -> dict[int, WorkerStatus]:
        """What the workers of this attempt say, by rank; the scheduler's is -1."""
        with suppress(ValueError):  # not yet one folder
            return {status.rank: status for status in read_statuses(self.folder) if status.lives()}
        return {}

    def journal(self) -> list[dict]:
        with suppress(ValueError, OSError):
            return list(JournalReader(self.folder.journal).entries())
        return []

    def events(self, name: str) -> list[dict]:
        return [entry for entry in self.journal() if entry.get("event") == name]

    def steps(self) -> list[int]:
        return [entry["step"] for entry in self.journal() if "train/loss" in entry.get("metrics", {})]

    def losses(self) -> list[float]:
        return [entry["metrics"]["train/loss"] for entry in self.journal() if "train/loss" in entry.get("metrics", {})]

    def until(self, reached, timeout_s: float = 120, pause_s: float = 0.02):
        """Wait for a truth, and return it; the launch must live until then."""
        deadline = time.monotonic() + timeout_s
        while not (found := reached()):
            assert self.process.poll() is None, f"ended too soon: {self.out}{self.err}"
            assert time.monotonic() < deadline, f"waited in vain: {self.statuses()}"
            time.sleep(pause_s)
        self.look()
        return found

    def until_stage(self, stage: str) -> "Scene":
        """Until all are in the stage; in `join` one of them waits for the others."""
        some = any if stage == "join" else all
        self.until(lambda: (s := self._ranks()) and some(status.stage == stage for status in s))
        return self

    def until_step(self, step: int) -> "Scene":
        self.until(lambda: step in self.steps())
        return self

    def _ranks(self) -> list[WorkerStatus]:
        return [status for rank, status in self.statuses().items() if rank >= 0]

    def look(self) -> set[int]:
        """Remember the processes of the launch that there are; their pids."""
        pids = {pid for pid, environment in _environments() if self.mark in environment}
        self.seen |= {(pid, started) for pid in pids if (started := process_start(pid))}
        return pids

    def pid(self, victim: str) -> int:
        """`launcher`, `msrun`, `scheduler`, `rank 0`, `rank 1`, or `data`, one of those that prepare images."""
        match victim.split():
            case ["launcher"]:
                return self.process.pid
            case ["rank", rank]:
                return self.statuses()[int(rank)].pid
            case ["scheduler"]:
                return self.statuses()[-1].pid
            case [name]:
                word = {"msrun": "msrun", "data": "forkserver"}[name]
                found = [pid for pid in sorted(self.look()) if word in _command(pid)]
                return found[0] if name == "msrun" else found[-1]
        raise ValueError(victim)

    def kill(self, victim: str, number: signal.Signals = signal.SIGKILL) -> "Scene":
        self.look()
        os.kill(self.pid(victim), number)
        return self

    def end(self, timeout_s: float = 200) -> float:
        """Wait for the launcher's end; returns the seconds that it took."""
        began = time.monotonic()
        while self.process.poll() is None:
            assert time.monotonic() - began < timeout_s, self.statuses()
            self.look()
            time.sleep(0.05)
        return time.monotonic() - began

    # --- what must be true in the end

    def holds(
        self,
        status: str,
        *,
        code: int,
        kind: str | None = None,
        mlflow: str | None = "",
        at_least: int | None = None,
        damaged: int = 0,
        patience_s: float = 0.0,
    ) -> None:
        """The run has ended with `status`, everywhere, and left nothing behind.

        `mlflow` is the status there, the same unless it is given; None where MLflow cannot know. `kind` is the class
        of the failure, `at_least` the step that the newest checkpoint has reached, `damaged` how many of them the
        scenario broke.
        """
        assert self.process.returncode == code, self.out + self.err
        assert "Traceback" not in self.out + self.err
        self.left_nothing(patience_s=patience_s)
        end = read_json(self.folder.end)
        assert end["status"] == status
        if status == "FAILED":
            assert end["exit_code"] == 1
            assert (end["error"]["kind"], read_json(self.folder.error)) == (kind, end["error"])
            assert f", {kind})" in self.err
        self.checkpoints_hold(at_least=at_least, damaged=damaged)
        if status == "FINISHED":
            assert self.folder.result.exists()
            assert sorted(set(self.steps())) == self.steps() == list(range(1, STEPS + 1))
        if mlflow is not None:
            if status == "KILLED" and not mlflow and SYNC_LATER in self.err:  # a stop waits seconds for a busy store
                done = self.sync()
                assert done.returncode == 0, done.stderr
            _, (run,) = self.mlflow_runs()
            assert run.info.status == (mlflow or status)
            assert status != "FAILED" or run.data.tags["error.kind"] == kind
            assert (mlflow or status) == "RUNNING" or run.info.end_time is not None

    def left_nothing(self, *, patience_s: float = 0.0) -> None:
        """No process of the launch is left, and its port is free."""
        deadline = time.monotonic() + patience_s
        while (left := self._alive()) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not left, [_command(pid) for pid in left]
        deadline = time.monotonic() + 2  # a process is gone for its parent a moment before its last thread is
        while _is_listened_at(self.port) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not _is_listened_at(self.port)

    def _alive(self) -> set[int]:
        return self.look() | {pid for pid, started in self.seen if process_start(pid) == started}

    def checkpoints_hold(self, *, at_least: int | None, damaged: int = 0) -> None:
        """The newest checkpoint can be loaded, and is of step `at_least`, or a later one; no other one is torn."""
        found = sorted(self.folder.checkpoints.glob("step-*.json"))
        whole = [s for s in found if file_digest(s.with_suffix(".safetensors")) == read_json(s)["sha256"]]
        assert len(found) - len(whole) == damaged
        assert whole or at_least is None
        if whole:
            tensors = load_file(whole[-1].with_suffix(".safetensors"))
            assert all(np.isfinite(tensor).all() for tensor in tensors.values())
            assert at_least is None or read_json(whole[-1])["step"] >= at_least

    def mlflow_runs(self):
        """A client, and every run of the store."""
        from mlflow import MlflowClient

        uri, database = self.uri, Path(self.uri.removeprefix("sqlite:///"))
        if database != Path(self.uri):  # MLflow keeps connections, and pages of a file that was put back meanwhile
            uri = f"sqlite:///{shutil.copy(database, self.path / f'look-{secrets.token_hex(4)}.db')}"
        client = MlflowClient(tracking_uri=uri)
        return client, client.search_runs([e.experiment_id for e in client.search_experiments()])

    def points_hold(self) -> None:
        """MLflow has every point of the journal, each once."""
        client, (run,) = self.mlflow_runs()
        wanted: dict[str, list[tuple[int, float]]] = {}
        for entry in self.journal():
            for key, value in entry.get("metrics", {}).items():
                wanted.setdefault(key, []).append((entry["step"], value))
        assert wanted.keys() == run.data.metrics.keys()
        for key, points in wanted.items():
            history = [(point.step, point.value) for point in client.get_metric_history(run.info.run_id, key)]
            assert sorted(history) == sorted(points), (key, history, points)

    def make_room(self) -> None:
        """Kill whatever a failed test has left."""
        for pid in self._alive() if self.mark else ():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if self.mark and self.process.poll() is None:
            self.process.kill()
            self.process.wait()


def _is_listened_at(port: int) -> bool:
    """Whether a server has the port; connections that the kernel still remembers do not count."""
    lines = [line.split() for name in ("tcp", "tcp6") for line in Path(f"/proc/net/{name}").read_text().splitlines()]
    return any(line[3] == "0A" and line[1].endswith(f":{port:04X}") for line in lines)


def _environments():
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and process_start(int(entry.name)) is not None:
            with suppress(OSError):
                yield int(entry.name), (entry / "environ").read_text(errors="replace")


def _command(pid: int) -> str:
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_text(errors="replace").replace("\0", " ")
    return ""
