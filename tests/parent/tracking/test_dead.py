"""Runs whose launcher is gone, and stores that answer late or not at all."""

import http.server
import socket
import threading
import time
from contextlib import closing, suppress

import pytest

from mvit.files import read_json, write_json
from mvit.parent.tracking import live
from mvit.parent.tracking.content import sync_command
from mvit.parent.tracking.dead import close_dead
from mvit.parent.tracking.store import connect, ensure_experiment
from tests.parent.tracking.test_live import points_in, python, the_run, wait_for

pytestmark = pytest.mark.mlflow

KILLED_AT_WORK = """
import os, signal, sys, time
from pathlib import Path
from mvit.config import MlflowTracking
from mvit.parent.tracking import live
from mvit.parent.tracking.content import parameters_of, tags_of
from mvit.rundir.frozen import read_run
from mvit.rundir.journal import Journal
from mvit.rundir.paths import RunDir
live.FLUSH_EVERY_S = 0.1
folder = RunDir(Path(sys.argv[2]))
Journal(folder.journal).metrics({"train/loss": 1.0}, step=1, epoch=0)
run = read_run(folder)
params, tags = parameters_of(run), tags_of(run)
where = MlflowTracking(kind="mlflow", uri=None, experiment="mvit")
live.Tracker(folder, tracking=where, uri=sys.argv[1], params=params, tags=tags).start()
while '"points": 1' not in (folder.tracking.read_text() if folder.tracking.exists() else ""):
    time.sleep(0.05)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_the_run_of_a_killed_launcher_is_closed_once_and_its_end_is_its_last_sign(run_folder, store):
    folder = run_folder("20260101-000000-aaaa")
    launcher = python(KILLED_AT_WORK, store, str(folder.path))
    assert launcher.communicate(timeout=60) == ("", "")
    assert launcher.returncode == -9
    assert the_run(store).info.status == "RUNNING"
    assert close_dead(folder, "KILLED") is None
    run = the_run(store)
    assert run.info.status == "KILLED"
    assert run.info.end_time == int(folder.journal.stat().st_mtime * 1000)
    assert close_dead(folder, "FAILED") is None  # it has ended already
    assert the_run(store).info.status == "KILLED"


def test_a_run_of_another_host_or_of_no_store_is_not_touched(folder, store, tracker):
    assert close_dead(folder, "FAILED") is None
    assert not folder.tracking.exists()
    client = connect(store)
    run = client.create_run(ensure_experiment(client, store, "mvit"), tags={"host": "elsewhere"})
    record = {"store": store, "experiment": "mvit", "experiment_id": run.info.experiment_id, "offset": 0}
    write_json(folder.tracking, {**record, "run_id": None})
    assert close_dead(folder, "FAILED") is None
    write_json(folder.tracking, {**record, "run_id": run.info.run_id})
    assert close_dead(folder, "FAILED") is None
    assert the_run(store).info.status == "RUNNING"
    folder.tracking.write_text("{torn")
    assert close_dead(folder, "FAILED") is None


def test_a_store_that_is_gone_down_or_silent_is_one_line_within_seconds(closed_port, folder, tmp_path):
    connect(f"sqlite:///{tmp_path}/x.db")  # MLflow is loaded
    with closing(socket.create_server(("127.0.0.1", 0))) as silent:
        silent_uri = f"http://127.0.0.1:{silent.getsockname()[1]}"
        for uri, why in {
            f"sqlite:///{tmp_path}/gone/mlflow.db": "is gone",
            f"http://127.0.0.1:{closed_port}": "connection refused",
            silent_uri: "no answer from",
        }.items():
            write_json(folder.tracking, {"store": uri, "experiment": "mvit", "run_id": "0123456789abcdef", "offset": 0})
            begun = time.monotonic()
            said = close_dead(folder, "FAILED")
            assert time.monotonic() - begun < 30
            assert said is not None
            assert why in said
            assert said.endswith(f"the run 01234567 may stay RUNNING there: {sync_command(folder.path)}")
            assert "\n" not in said
    assert not (tmp_path / "gone").exists()


class Late(http.server.BaseHTTPRequestHandler):
    """Answers everything 20 s later."""

    def do_GET(self):
        time.sleep(20)
        with suppress(OSError):  # nobody waited so long
            self.send_error(503)

    do_POST = do_GET

    def log_message(self, *arguments):
        pass


@pytest.fixture
def late():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Late)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


ONE_RUN = """
import sys, time
from pathlib import Path
from mvit.config import MlflowTracking
from mvit.parent.tracking.live import Tracker
from mvit.rundir.paths import RunDir
folder = RunDir(Path(sys.argv[2]))
where = MlflowTracking(kind="mlflow", uri=None, experiment="mvit")
tracker = Tracker(folder, tracking=where, uri=sys.argv[1], params={}, tags={})
begun = time.monotonic()
tracker.start()
print(time.monotonic() - begun)
time.sleep(6)
begun = time.monotonic()
print(tracker.finish("FINISHED", artifacts=[], tags={}, timeout_s=2))
print(time.monotonic() - begun)
print(time.time(), flush=True)
"""


@pytest.mark.parametrize("kind", ["late", "silent"])
def test_a_late_server_holds_up_neither_the_start_nor_the_end_nor_the_exit(folder, journal, kind, late):
    journal.metrics({"train/loss": 1.0}, step=1, epoch=0)
    with closing(socket.create_server(("127.0.0.1", 0))) as silent:
        uri = late if kind == "late" else f"http://127.0.0.1:{silent.getsockname()[1]}"
        out, err = python(ONE_RUN, uri, str(folder.path)).communicate(timeout=60)
        gone = time.time()
    started, said, finished, ended = out.splitlines()
    assert err == ""
    assert float(started) < 5
    assert float(finished) < 9
    assert gone - float(ended) < 9
    assert said == (f"MLflow: not mirrored (no answer from {uri} within 2 s); later: python -m mvit sync {folder.path}")
    assert read_json(folder.tracking)["store"] == uri
    assert read_json(folder.tracking)["run_id"] is None


def test_a_store_that_comes_back_gets_all_of_it_while_the_run_goes_on(folder, journal, monkeypatch, store, tmp_path):
    """A database that cannot be opened at first stands for any store that is down."""
    from mvit.config import MlflowTracking

    monkeypatch.setattr(live, "FLUSH_EVERY_S", 0.1)
    (tmp_path / "late").write_text("in the way")
    where = MlflowTracking(kind="mlflow", uri=None, experiment="mvit")
    uri = f"sqlite:///{tmp_path}/late/mlflow.db"
    mirror = live.Tracker(folder, tracking=where, uri=uri, params={}, tags={})
    mirror.start()
    journal.metrics({"train/loss": 1.0}, step=1, epoch=0)
    wait_for(lambda: folder.tracking.exists())
    time.sleep(1)
    assert points_in(folder) == 0
    (tmp_path / "late").unlink()
    wait_for(lambda: points_in(folder) == 1, timeout_s=60)
    assert mirror.finish("FINISHED", artifacts=[], tags={}) is None
    assert the_run(uri).info.status == "FINISHED"
