"""Supervision of real processes; a stand-in for msrun shows failures that the real one cannot be made to show."""

import os
import signal
import socket
import sys
import threading
import time
from dataclasses import replace

import pytest

from mvit.config import TrainLimitsConfig
from mvit.parent import signals, supervise, watchdog
from mvit.parent.command import Command
from mvit.parent.host import free_port
from mvit.parent.stop_request import StopRequest
from mvit.parent.verdict import failure_kind, kernel_kills
from mvit.process import process_start
from mvit.rundir import paths
from mvit.rundir.status import read_statuses

SAY = """
import json, os, socket, subprocess, sys, time
from pathlib import Path
folder = Path(sys.argv[1])
def status(rank, pid, stage="step", error=None, marks=0):
    started = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    content = {"rank": rank, "host": socket.gethostname(), "pid": pid, "started": started, "stage": stage, "step": 3}
    content |= {"marks": marks, "error": error, "time": 1.0}
    (folder / "status" / f"{rank}.json").write_text(json.dumps(content))
def error(message, at):
    return {"type": "ValueError", "message": message, "where": "mvit/x.py:1", "stage": "step", "time": at}
"""


@pytest.fixture
def program_of(tmp_path):
    """The command of a Python program that gets a run folder as its argument, and the folder."""

    def make(program):
        folder = paths.create_run_dir(tmp_path / "run")
        script = tmp_path / "program.py"
        script.write_text(SAY + program)
        argv = (sys.executable, str(script), str(folder.path))
        return Command(argv, {}, logs=folder.attempt_logs(1), workers=1, port=None), folder

    return make


def cause(outcome):
    assert outcome.failure is not None
    return outcome.failure


@pytest.fixture(autouse=True)
def short_grace(monkeypatch):
    for name in ("GRACE_S", "TERM_S"):
        monkeypatch.setattr(supervise, name, 0.3)
    monkeypatch.setattr(supervise, "POLL_S", 0.05)


LIMITS = TrainLimitsConfig(join_s=60.0, data_s=60.0, compile_s=60.0, step_s=60.0, evaluate_s=60.0)


def supervised(command, folder, *, limits=LIMITS):
    with signals.stopping() as stop:
        return supervise.run(command, folder, limits=limits, watch=lambda _: None, stop=stop)


def test_finished_means_exit_code_0_and_a_result(program_of):
    assert supervised(*program_of("(folder / 'result.json').write_text('{}')")).status == "FINISHED"


def test_exit_code_0_without_a_result_is_a_failure(program_of):
    outcome = supervised(*program_of(""))
    assert (outcome.status, outcome.exit_code) == ("FAILED", 1)
    assert cause(outcome).message == "ended with exit code 0 but wrote no result"


def test_a_result_does_not_excuse_an_exit_code(program_of):
    outcome = supervised(*program_of("(folder / 'result.json').write_text('{}'); sys.exit(3)"))
    assert cause(outcome).message == "ended with exit code 3"


@pytest.mark.parametrize(("stage", "ended"), [("done", "FINISHED"), ("step", "FAILED")])
def test_a_crash_after_all_workers_were_done_costs_nothing(program_of, stage, ended):
    program = f"""
(folder / 'result.json').write_text('{{}}')
status(0, os.getpid(), "done"); status(1, os.getpid(), "{stage}")
os.kill(os.getpid(), 11)
"""
    assert supervised(*program_of(program)).status == ended


def test_a_signal_is_named(program_of):
    outcome = supervised(*program_of("os.kill(os.getpid(), 9)"))
    assert cause(outcome).message == "ended by signal 9 (SIGKILL)"


def test_a_command_that_cannot_be_started_is_a_failure(program_of):
    command, folder = program_of("")
    outcome = supervised(replace(command, argv=("/nowhere/msrun",)), folder)
    assert cause(outcome).message == "cannot start /nowhere/msrun: No such file or directory"


def test_the_first_cause_is_the_earliest_error_not_the_lowest_rank(program_of):
    program = """
status(0, os.getpid(), "failed", error("came second", 2.0))
status(1, os.getpid(), "failed", error("came first", 1.0))
sys.exit(1)
"""
    outcome = supervised(*program_of(program))
    assert cause(outcome).rank == 1
    assert next(cause(outcome).lines()) == "failed (rank 1, step, code) at mvit/x.py:1: ValueError: came first"


def test_an_msrun_that_waits_after_a_failed_worker_is_ended_with_its_children(program_of):
    program = """
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
(folder / "child").write_text(str(child.pid))
status(1, os.getpid(), "failed", error("broken", 1.0))
time.sleep(600)
"""
    command, folder = program_of(program)
    began = time.monotonic()
    outcome = supervised(command, folder)
    took = time.monotonic() - began
    print(f"from a worker's failure to the parent's end: {took:.1f} s")
    assert cause(outcome).message == "ValueError: broken"
    assert process_start(int((folder.path / "child").read_text())) is None


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_to_the_parent_stops_every_process(program_of, number, code):
    program = """
import signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
stubborn = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
child = subprocess.Popen([sys.executable, "-c", stubborn], start_new_session=True)
(folder / "child").write_text(str(child.pid))
time.sleep(600)
"""
    command, folder = program_of(program)

    def stop():
        while not (folder.path / "child").exists():
            time.sleep(0.05)
        os.kill(os.getpid(), number)

    before = signal.getsignal(number)
    threading.Thread(target=stop).start()
    outcome = supervised(command, folder)
    assert (outcome.status, outcome.exit_code) == ("KILLED", code)
    assert process_start(int((folder.path / "child").read_text())) is None
    assert signal.getsignal(number) == before


SAVES = """
while not (folder / "stop.json").exists():
    time.sleep(0.02)
time.sleep(float({seconds}))
(folder / "checkpoints" / "step-00000004.json").write_text("whole")
status(0, os.getpid(), "stopped")
"""


def signalled(command, folder, *signals, ready="status/0.json"):
    """Supervise it, with signals to ourselves once it is ready, and half a second apart; the outcome and seconds."""
    at = []

    def send():
        while not (folder.path / ready).exists():
            time.sleep(0.02)
        for number in signals:
            at.append(time.monotonic())
            os.kill(os.getpid(), number)
            time.sleep(0.5)

    thread = threading.Thread(target=send)
    thread.start()
    outcome = supervised(command, folder)
    took = time.monotonic() - at[0]
    thread.join()
    return outcome, took


def test_a_first_signal_asks_for_a_checkpoint(program_of, monkeypatch):
    monkeypatch.setattr(supervise, "STOP_S", 60.0)
    command, folder = program_of("status(0, os.getpid())" + SAVES.format(seconds=0.3))
    outcome, took = signalled(command, folder, signal.SIGTERM)
    print(f"from SIGTERM to the end: {took:.1f} s")
    assert (outcome.status, outcome.exit_code) == ("KILLED", 143)
    assert (folder.checkpoints / "step-00000004.json").exists()
    assert took < 30


def test_a_second_signal_waits_for_nothing(program_of, monkeypatch):
    monkeypatch.setattr(supervise, "STOP_S", 60.0)
    command, folder = program_of("status(0, os.getpid())" + SAVES.format(seconds=60))
    outcome, took = signalled(command, folder, signal.SIGINT, signal.SIGINT)
    print(f"from the first to the end, the second after 0.5 s: {took:.1f} s")
    assert (outcome.status, outcome.exit_code) == ("KILLED", 130)
    assert took < 30


def test_who_never_writes_its_checkpoint_is_killed_in_time(program_of, monkeypatch):
    monkeypatch.undo()
    stubborn = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); status(0, os.getpid()); time.sleep(600)"
    outcome, took = signalled(*program_of(stubborn), signal.SIGINT)
    print(f"from Ctrl-C to the end of who ignores it: {took:.1f} s")
    assert outcome.status == "KILLED"
    assert took > supervise.STOP_S


def test_before_the_first_step_there_is_nothing_to_wait_for(program_of, monkeypatch):
    monkeypatch.setattr(supervise, "STOP_S", 60.0)
    outcome, took = signalled(*program_of("status(0, os.getpid(), 'compile'); time.sleep(600)"), signal.SIGINT)
    assert outcome.status == "KILLED"
    assert took < 30


def test_a_failure_stays_one_when_a_person_does_not_wait_for_its_end(program_of, monkeypatch):
    monkeypatch.setattr(supervise, "GRACE_S", 60.0)
    program = """
status(0, os.getpid(), "failed", error("broken", 1.0))
time.sleep(2)
(folder / "noticed").touch()
time.sleep(600)
"""
    outcome, took = signalled(*program_of(program), signal.SIGINT, ready="noticed")
    assert (outcome.status, cause(outcome).message) == ("FAILED", "ValueError: broken")
    assert took < 30


def test_who_began_it_under_nohup_may_hang_up():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with signals.stopping() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            os.kill(os.getpid(), signal.SIGTERM)
        assert stop.reason is not None
        assert (stop.reason.signal, stop.is_urgent) == (signal.SIGTERM, False)
    finally:
        signal.signal(signal.SIGHUP, before)


def test_between_runs_a_signal_is_raised():
    with pytest.raises(signals.Interrupted) as stopped, signals.raising():
        signal.raise_signal(signal.SIGTERM)
    assert stopped.value.exit_code == 143


def test_what_an_earlier_attempt_left_does_not_count(program_of):
    command, folder = program_of("(folder / 'result.json').write_text('{}')")
    for name in ("stop_at.json", "status/1.json"):
        (folder.path / name).write_text('{"rank": 1, "pid": 1, "started": 0, "stage": "step", "step": 9, "error": {}}')
    assert supervised(replace(command, workers=2), folder).status == "FINISHED"
    assert not folder.stop_at.exists()


def test_a_taken_port_is_seen_before_the_start(program_of):
    command, folder = program_of("")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        outcome = supervised(replace(command, port=port), folder)
    assert (cause(outcome).kind, cause(outcome).message) == ("port", f"port {port} is taken")


def test_of_two_that_are_gone_msrun_knows_which_one_it_did_not_kill_itself(program_of):
    program = """
children = [subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]) for _ in range(2)]
for rank, child in enumerate(children):
    status(rank, child.pid)
print(f"[ERROR] Worker process {children[1].pid} exit with exception. Error code: -9.", flush=True)
for child in reversed(children):  # a look in between sees the one that went first
    child.kill()
for child in children:
    child.wait()
time.sleep(600)
"""
    command, folder = program_of(program)
    outcome = supervised(replace(command, workers=2), folder)
    assert (cause(outcome).kind, cause(outcome).rank) == ("killed", 1)


def test_a_port_that_is_lost_to_somebody_else_is_read_from_the_schedulers_log(program_of):
    program = """
failure = {"type": "RuntimeError", "message": "cluster", "where": None, "stage": "join", "time": 1.0}
(folder / "logs/attempt-1/scheduler.log").write_text("[ERROR] Failed to init the tcp server.")
status(-1, os.getpid(), "failed", failure)
time.sleep(600)
"""
    command, folder = program_of(program)
    free = free_port()
    outcome = supervised(replace(command, port=free, workers=2), folder)
    assert (cause(outcome).kind, cause(outcome).rank) == ("port", None)
    assert cause(outcome).message == f"msrun's scheduler cannot listen on port {free}"


def test_a_stage_that_takes_too_long_is_named_with_the_rank_that_is_behind(program_of):
    program = """
status(0, os.getpid(), "step", marks=5)
status(1, os.getpid(), "compile", marks=4)
time.sleep(600)
"""
    command, folder = program_of(program)
    outcome = supervised(replace(command, workers=2), folder, limits=replace_limits(compile_s=0.5))
    assert (cause(outcome).kind, cause(outcome).rank, cause(outcome).stage) == ("hang", 1, "compile")
    assert cause(outcome).message.startswith("rank 1 in compile for ")
    assert cause(outcome).message.endswith(" s, over limits.compile_s=0.5")


def test_workers_that_never_begin_are_named(program_of):
    command, folder = program_of("time.sleep(600)")
    outcome = supervised(replace(command, workers=2), folder, limits=replace_limits(join_s=0.5))
    assert cause(outcome).message.startswith("ranks 0, 1 in join for ")


def test_a_status_that_is_torn_says_nothing(program_of):
    _, folder = program_of("")
    for name, content in {"0": '["rank"]', "1": '{"rank": 1', "2": '{"rank": 2}', "3": "[" * 100_000}.items():
        (folder.status / f"{name}.json").write_text(content)
    assert read_statuses(folder) == []


def replace_limits(**limits):
    return LIMITS.model_copy(update=limits)


def test_a_worker_that_is_stopped_is_given_up(program_of, monkeypatch):
    monkeypatch.setattr(watchdog, "STALE_S", 0.5)
    program = """
import signal
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
status(0, os.getpid()); status(1, child.pid)
os.kill(child.pid, signal.SIGSTOP)
time.sleep(600)
"""
    command, folder = program_of(program)
    outcome = supervised(replace(command, workers=2), folder)
    assert (cause(outcome).kind, cause(outcome).rank) == ("hang", 1)
    assert "the process is stopped" in cause(outcome).message


@pytest.mark.parametrize(
    ("error", "message", "stage", "kind"),
    [
        ("UnreadableImage", "x.jpg cannot be decoded", "step", "data"),
        ("NonFinite", "the loss is not finite at step 3", "step", "nan"),
        ("CheckpointError", "no checkpoint is whole", "build", "checkpoint"),
        ("MemoryError", "", "step", "oom"),
        ("OSError", "libmvit.so: failed to map segment from shared object", "build", "oom"),
        ("RuntimeError", "Out of memory: 3 GiB", "compile", "oom"),
        ("RuntimeError", "Address already in use", "join", "port"),
        ("RuntimeError", "Failed to initialize distributed job cluster", "join", "comm"),
        ("RuntimeError", "AllReduce timed out", "step", "comm"),
        ("TypeError", "For 'MatMul', the shapes differ", "compile", "compile"),
        ("ValueError", "broken", "step", "code"),
    ],
)
def test_a_failure_has_a_class(error, message, stage, kind):
    assert failure_kind(error, message, stage=stage) == kind


def test_a_kill_is_of_the_class_killed(program_of):
    assert cause(supervised(*program_of("os.kill(os.getpid(), 9)"))).kind == "killed"
    assert isinstance(kernel_kills(), int)


@pytest.mark.parametrize("number", [signal.SIGABRT, signal.SIGKILL])
def test_who_has_not_even_the_memory_to_report_it_is_read_from_the_log(program_of, number):
    words = "cannot allocate memory for thread-local data: ABORT"
    failure = cause(supervised(*program_of(f"print('{words}', flush=True); os.kill(os.getpid(), {number:d})")))
    assert failure.kind == "oom"
    assert failure.message.endswith(f": {words}")


def test_a_watcher_that_breaks_leaves_no_process(program_of):
    command, folder = program_of("(folder / 'child').write_text(str(os.getpid())); time.sleep(600)")

    def watch(_):
        if (folder.path / "child").exists():
            raise OSError("no space left on device")

    with pytest.raises(OSError, match="no space"):
        supervise.run(command, folder, limits=LIMITS, watch=watch, stop=StopRequest())
    assert process_start(int((folder.path / "child").read_text())) is None
