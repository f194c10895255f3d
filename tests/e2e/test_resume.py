"""Runs that are stopped, killed, resumed and forked: real processes, real msrun, real SQLite."""

import json
import os
import signal
import socket
import subprocess
import sys
import time

import pytest

from mvit.rundir import RunDir
from tests.conftest import CHECKOUT, TINY, Launched

pytestmark = pytest.mark.mindspore

# 80 steps, which take long enough to be stopped in their midst.
LONG = (*TINY, "data=synthetic", "data.image_size=32", "data.num_train=160", "data.num_val=50", "data.classes=7")
LONG = (*LONG, "train.epochs=4", "train.global_batch_size=8", "train.eval_batch_size=8", "train.log_every_steps=1")
LONG = (*LONG, "train.ema_momentum=0.01", "model.dropout=0.1")


class Room:
    """A place for runs and their store."""

    def __init__(self, path):
        self.path = path
        self.runs = path / "runs"
        self.env = {**os.environ, "MLFLOW_TRACKING_URI": f"sqlite:///{path}/mlflow.db"}

    def start(self, *overrides, **env):
        command = [sys.executable, str(CHECKOUT / "launch.py"), f"runs_dir={self.runs}", *LONG, *overrides]
        pipe = subprocess.PIPE
        return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env={**self.env, **env}, cwd=self.path)

    def begin_resume(self, *arguments):
        command = [sys.executable, "-m", "mvit", "resume", *map(str, arguments)]
        pipe = subprocess.PIPE
        return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=self.env, cwd=CHECKOUT)

    def resume(self, *arguments):
        command = [sys.executable, "-m", "mvit", "resume", *map(str, arguments)]
        done = subprocess.run(
            command, capture_output=True, text=True, env=self.env, cwd=CHECKOUT, timeout=200, check=False
        )
        return Launched(done.returncode, done.stdout, done.stderr, self.runs)

    def wait_for_step(self, step):
        """The folder of the one run, once its journal has come so far."""
        deadline = time.monotonic() + 120
        while True:
            for journal in self.runs.glob("*/*/metrics.jsonl"):
                done = Launched(0, "", "", self.runs)
                with_steps = [line for line in journal.read_text().splitlines(keepends=True) if line.endswith("\n")]
                if any(json.loads(line).get("step", 0) >= step for line in with_steps):
                    return RunDir(done.folder)
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def mlflow_runs(self):
        from mlflow import MlflowClient

        client = MlflowClient(tracking_uri=self.env["MLFLOW_TRACKING_URI"])
        return client, client.search_runs([e.experiment_id for e in client.search_experiments()])


@pytest.fixture
def room(tmp_path):
    return Room(tmp_path)


def ended(launched, process):
    out, err = process.communicate(timeout=250)
    return Launched(process.returncode, out, err, launched.runs)


def read(path):
    return json.loads(path.read_text())


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that nobody disturbed."""
    room = Room(tmp_path_factory.mktemp("whole"))
    done = ended(room, room.start("tracking=none"))
    assert done.code == 0, done.err
    return room, done


def test_a_run_that_is_stopped_goes_on_as_if_it_had_not_been(room, whole):
    process = room.start()
    folder = room.wait_for_step(25)
    process.send_signal(signal.SIGINT)
    began = time.monotonic()
    stopped = ended(room, process)
    took = time.monotonic() - began
    step = read(folder.stop_at)["step"]
    print(f"from Ctrl-C to the end: {took:.1f} s, with a checkpoint of step {step}")
    assert stopped.code == 130
    assert f"mvit: stopped after step {step}; continue with: python -m mvit resume {folder.path}" in stopped.err
    assert (folder.checkpoints / f"step-{step:08d}.safetensors").exists()
    assert read(folder.end)["status"] == "KILLED"
    _, (run,) = room.mlflow_runs()
    assert run.info.status == "KILLED"

    resumed = room.resume(folder.path)
    assert resumed.code == 0, resumed.err
    assert f"resumed after step {step}" in resumed.out
    assert resumed.losses() == whole[1].losses()
    assert resumed.result()["metrics"]["best/val_acc1"] == whole[1].result()["metrics"]["best/val_acc1"]
    assert {path.name for path in folder.logs.iterdir()} == {"attempt-1", "attempt-2"}
    assert not folder.stop.exists()
    client, (again,) = room.mlflow_runs()
    assert (again.info.run_id, again.info.status) == (run.info.run_id, "FINISHED")
    points = client.get_metric_history(run.info.run_id, "train/loss")
    assert [point.step for point in points] == list(range(1, 81))


def test_two_workers_that_are_stopped_agree_on_a_step_and_resume(room):
    process = room.start("topology=cpu_2", "tracking=none")
    folder = room.wait_for_step(30)
    process.send_signal(signal.SIGTERM)
    began = time.monotonic()
    stopped = ended(room, process)
    took = time.monotonic() - began
    step = read(folder.stop_at)["step"]
    print(f"two workers, from SIGTERM to the end: {took:.1f} s, with a checkpoint of step {step}")
    assert stopped.code == 143
    assert f"stopped after step {step}" in stopped.err
    resumed = room.resume(folder.path)
    assert resumed.code == 0, resumed.err
    assert len(resumed.losses()) == 80


def test_a_finished_run_is_refused_and_can_be_forked(whole):
    room, done = whole
    folder = RunDir(done.folder)
    refused = room.resume(folder.path)
    assert (refused.code, refused.out) == (2, "")
    assert "is FINISHED" in refused.err
    too_short = room.resume(folder.path, "--fork")
    assert (too_short.code, too_short.out) == (2, "")
    assert "train.epochs: 4 ends after step 80, and the checkpoint is of step 80" in too_short.err
    forked = room.resume(folder.path, "--fork", "train.epochs=5", "optimizer.lr=1e-4")
    assert forked.code == 0, forked.err
    (new,) = (path.parent for path in room.runs.glob("*/*/run.json") if path.parent != folder.path)
    origin = read(new / "provenance.json")["forked_from"]
    assert (origin["folder"], origin["step"]) == (str(folder.path), 80)
    lines = [json.loads(line) for line in (new / "metrics.jsonl").read_text().splitlines()]
    assert [e["step"] for e in lines if "train/loss" in e.get("metrics", {})] == list(range(81, 101))
    assert read(new / "result.json")["steps"] == 100


def test_a_killed_worker_costs_a_restart_and_a_taken_port_none(room):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        overrides = ("topology=cpu_2", "tracking=none", "train.max_restarts=1", "train.checkpoint_every_steps=10")
        process = room.start(*overrides, MVIT_MASTER_PORT=str(taken.getsockname()[1]))
        folder = room.wait_for_step(25)
        os.kill(read(folder.status / "1.json")["pid"], signal.SIGKILL)
        began = time.monotonic()
        while not folder.attempt_logs(2).exists():
            time.sleep(0.02)
            assert time.monotonic() - began < 60
        print(f"from the end of a worker to the restart: {time.monotonic() - began:.1f} s")
        done = ended(room, process)
    assert done.code == 0, done.err
    assert "failed (rank 1, step, killed): the process is gone without a word; restart 1 of 1, after step" in done.out
    assert [e["event"] for e in done.journal() if e.get("event") == "resumed"] == ["resumed"]
    assert len(done.losses()) == 80
    assert not folder.error.exists()


def test_a_launcher_that_is_killed_leaves_a_run_that_is_closed_and_can_be_resumed(room):
    process = room.start("train.checkpoint_every_steps=10")
    folder = room.wait_for_step(30)
    while not folder.tracking.exists() or not read(folder.tracking)["run_id"]:
        time.sleep(0.05)
    refused = room.resume(folder.path)
    assert refused.code == 2
    assert "is still running: its launcher is process" in refused.err
    process.kill()
    process.communicate()
    closed = subprocess.run(
        [sys.executable, "-c", CLOSE, str(room.runs)], env=room.env, cwd=CHECKOUT, capture_output=True, text=True
    )
    assert "it is recorded as KILLED" in closed.stdout, closed.stderr
    assert read(folder.end)["error"]["message"] == "its launcher was killed"
    _, (run,) = room.mlflow_runs()
    assert run.info.status == "KILLED"
    resumed = room.resume(folder.path)
    assert resumed.code == 0, resumed.err
    assert len(resumed.losses()) == 80
    _, (run,) = room.mlflow_runs()
    assert run.info.status == "FINISHED"


CLOSE = """
import sys, threading, time
from pathlib import Path
from mvit.launch import orphans
time.sleep(2)
began = time.monotonic()
orphans.close(Path(sys.argv[1]))
print(f"{time.monotonic() - began:.2f} s")
for thread in threading.enumerate():
    if thread.name == "orphans":
        thread.join()
"""
