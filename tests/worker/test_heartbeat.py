"""What a worker writes of itself, and the faults that tests inject into it."""

import os
import signal
import socket
import subprocess
import sys
import threading

import pytest

from mvit.files import read_json
from mvit.process import process_start
from mvit.rundir.paths import RunDir
from mvit.rundir.status import Stage, read_statuses
from mvit.worker import heartbeat
from mvit.worker.faults import Disappear, Fault, Kill, Leave, Raise, Sleep, read_fault
from mvit.worker.heartbeat import Heartbeat


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "status").mkdir()
    return RunDir(tmp_path)


def beat(folder, **options):
    return Heartbeat(folder.status / "1.json", rank=1, **options)


def test_a_status_names_its_process_on_its_host(folder):
    heartbeat = beat(folder)
    (status,) = read_statuses(folder)
    assert (status.rank, status.host, status.pid) == (1, socket.gethostname(), os.getpid())
    assert status.started == process_start(os.getpid())
    assert status.lives()
    assert (status.stage, status.step, status.error) == (Stage.START, 0, None)
    assert heartbeat.status == status.model_copy(update={"time": heartbeat.status.time})


def test_a_stage_is_visible_at_once_and_counts_as_a_mark(folder):
    heartbeat = beat(folder)
    heartbeat.mark()
    heartbeat.stage(Stage.COMPILE)
    (status,) = read_statuses(folder)
    assert (status.stage, status.marks) == (Stage.COMPILE, 2)


def test_an_unknown_stage_cannot_be_written(folder):
    heartbeat = beat(folder)
    with pytest.raises(ValueError, match="'warmup' is not a valid Stage"):
        heartbeat.stage("warmup")  # pyright: ignore[reportArgumentType]  what the types forbid, at run time
    assert read_json(folder.status / "1.json")["stage"] == "start"


def test_a_failure_names_its_stage_and_the_last_line_of_mvit(folder):
    heartbeat = beat(folder)
    heartbeat.stage(Stage.DATA)
    try:
        Stage("nowhere")
    except ValueError as error:
        heartbeat.failed(error)
    (status,) = read_statuses(folder)
    assert status.stage == Stage.FAILED
    assert status.error is not None
    assert (status.error.type, status.error.stage) == ("ValueError", Stage.DATA)
    assert status.error.message == "'nowhere' is not a valid Stage"


# --- faults


def fault(tmp_path, action, *, at: Stage | int = Stage.DATA):
    return Fault(rank=1, at=at, action=action, record=str(tmp_path / "record"))


@pytest.mark.parametrize(
    "action",
    [
        Raise(error="OSError", message="no such card"),
        Sleep(seconds=0.5),
        Leave(code=3),
        Disappear(code=0),
        Kill(signal=signal.SIGSTOP),
    ],
    ids=lambda action: action.kind,
)
def test_a_fault_survives_the_environment_and_is_for_one_rank(tmp_path, action):
    for at in (Stage.EVALUATE, 25):
        made = fault(tmp_path, action, at=at)
        environment = made.environment()
        assert read_fault(environment, rank=1) == made
        assert read_fault(environment, rank=0) is None
    assert read_fault({}, rank=1) is None


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        "raise ValueError",
        '{"rank": 1, "at": "lunch", "action": {"kind": "sleep", "seconds": 1}, "record": "x"}',
        '{"rank": 1, "at": 3, "action": {"kind": "eval", "text": "1"}, "record": "x"}',
        '{"rank": 1, "at": 3, "action": {"kind": "raise", "error": "SystemError"}, "record": "x"}',
    ],
)
def test_what_describes_no_fault_is_refused(text):
    with pytest.raises(ValueError, match="Fault"):
        read_fault({"MVIT_FAULT": text}, rank=1)


@pytest.mark.parametrize(
    ("action", "error"),
    [
        (Raise(error="RuntimeError", message="AllReduce timed out"), RuntimeError("AllReduce timed out")),
        (Raise(error="MemoryError"), MemoryError()),
        (Leave(code=3), SystemExit(3)),
    ],
)
def test_a_fault_strikes_once_its_stage_is_visible_and_is_recorded(folder, tmp_path, action, error):
    heartbeat = beat(folder, fault=fault(tmp_path, action))
    heartbeat.stage(Stage.JOIN)
    assert not (tmp_path / "record").exists()
    with pytest.raises(type(error)) as raised:
        heartbeat.stage(Stage.DATA)
    assert raised.value.args == error.args
    assert read_json(folder.status / "1.json")["stage"] == "data"
    assert float((tmp_path / "record").read_text()) > 0


def test_a_fault_strikes_after_its_step(folder, tmp_path):
    heartbeat = beat(folder, fault=fault(tmp_path, Raise(error="ValueError", message="wrong"), at=2))
    heartbeat.step(1)
    with pytest.raises(ValueError, match="^wrong$"):
        heartbeat.step(2)
    assert heartbeat.status.step == 2


def test_an_injected_failure_is_placed_where_the_heartbeat_was_called(folder, tmp_path):
    heartbeat = beat(folder, fault=fault(tmp_path, Raise(error="ValueError", message="wrong")))
    with pytest.raises(ValueError, match="^wrong$") as raised:
        heartbeat.stage(Stage.DATA)
    heartbeat.failed(raised.value)
    (status,) = read_statuses(folder)
    assert status.error is not None
    assert status.error.where is None  # neither heartbeat.py nor faults.py; this test is not part of mvit


@pytest.mark.parametrize(
    ("action", "code"), [(Disappear(code=7), 7), (Kill(signal=signal.SIGABRT), -signal.SIGABRT), (Leave(code=3), 3)]
)
def test_a_fault_ends_a_process(tmp_path, action, code):
    script = "import os; from mvit.worker.faults import read_fault; read_fault(os.environ, rank=1).strike()"
    environment = {**os.environ, **fault(tmp_path, action).environment()}
    done = subprocess.run([sys.executable, "-c", script], env=environment, check=False)
    assert done.returncode == code


def test_a_step_does_not_wait_for_a_slow_disk(folder, monkeypatch):
    heart, slow = beat(folder), threading.Event()
    writing = threading.Event()

    def write(*_):
        writing.set()
        slow.wait(20)

    monkeypatch.setattr(heartbeat, "write_status", write)
    assert writing.wait(20)  # the thread of the heartbeat is in it
    step = threading.Thread(target=lambda: (heart.step(7), heart.mark()), daemon=True)
    step.start()
    step.join(10)
    assert not step.is_alive()
    slow.set()
