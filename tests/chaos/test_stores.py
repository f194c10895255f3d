"""Tracking servers that are down, come and go, lie or do not answer: the run does not care, and sync sends the rest."""

import http.server
import shutil
import signal
import socket
import sqlite3
import threading
import time
from contextlib import contextmanager

import pytest

from tests.served import Served

pytestmark = [pytest.mark.mindspore, pytest.mark.chaos]


@pytest.fixture
def server(scene):
    """MLflow's own, on the scene's store; the scene is told its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    made = Served(scene.uri, port)
    scene.uri = made.uri
    yield made
    made.down()


def sync(scene):
    """Send what is missing; a second time there is nothing to send."""
    first, second = scene.sync(), scene.sync()
    assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
    assert "nothing to do" in second.stdout


def test_what_a_server_that_is_down_misses_is_sent_by_sync(scene):
    store, scene.uri = scene.uri, f"http://127.0.0.1:{scene.port}"
    scene.launch().end()
    scene.holds("FINISHED", code=0, at_least=80, mlflow=None)
    assert f"mvit: MLflow: not mirrored (connection refused at {scene.uri}); later: python -m mvit sync" in scene.err
    scene.uri = store
    for words in ("points sent", "nothing to do"):
        done = scene.call("-m", "mvit", "sync", str(scene.folder.path), "--uri", store)
        assert (done.returncode, done.stderr) == (0, "")
        assert words in done.stdout
    scene.holds("FINISHED", code=0, at_least=80)
    scene.points_hold()


def test_a_server_that_goes_down_in_the_middle_gets_the_rest_afterwards(scene, server):
    server.up()
    scene.launch().until_step(25)
    server.down()
    scene.end()
    scene.holds("FINISHED", code=0, at_least=80, mlflow=None)
    server.up()
    scene.holds("FINISHED", code=0, at_least=80, mlflow="RUNNING")
    sync(scene)
    scene.holds("FINISHED", code=0, at_least=80)
    scene.points_hold()


def test_a_server_that_comes_up_in_the_middle_gets_all(scene, server):
    scene.launch("train.epochs=8").until_step(10)
    server.up()
    scene.end()
    assert scene.process.returncode == 0
    scene.left_nothing()
    sync(scene)
    scene.points_hold()


def test_a_failure_while_the_server_is_down_is_told_afterwards(scene, server):
    scene.launch().until_step(25).kill("rank 1").end()
    scene.holds("FAILED", code=1, kind="killed", at_least=20, mlflow=None)
    server.up()
    sync(scene)
    scene.holds("FAILED", code=1, kind="killed", at_least=20)
    scene.points_hold()


def test_ctrl_c_does_not_wait_for_a_server_that_does_not_answer(scene, measured):
    with answering(Silent) as uri:
        scene.uri = uri
        scene.launch().until_step(25).kill("launcher", signal.SIGINT)
        measured("from SIGINT with a silent server to the end of the last process", scene.end())
        scene.holds("KILLED", code=130, at_least=25, mlflow=None)


class Silent(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        time.sleep(600)

    do_POST = do_GET


class Broken(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_error(500)

    do_POST = do_GET

    def log_message(self, *_):
        pass


class Stranger(Broken):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"<html>Welcome</html>")

    do_POST = do_GET


@contextmanager
def answering(handler):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("handler", [Silent, Broken, Stranger])
def test_whatever_answers_the_run_finishes_and_sync_sends_it(scene, handler):
    database = scene.uri
    with answering(handler) as uri:
        scene.uri = uri
        scene.launch().end()
        scene.holds("FINISHED", code=0, at_least=80, mlflow=None)
        assert "later: python -m mvit sync" in scene.err
    done = scene.call("-m", "mvit", "sync", str(scene.folder.path), "--uri", database)
    assert done.returncode == 0, done.stderr
    scene.uri = database
    scene.holds("FINISHED", code=0, at_least=80)
    scene.points_hold()


def test_a_store_that_another_process_locks_gets_all_afterwards(scene):
    database = scene.uri.removeprefix("sqlite:///")
    scene.launch().until_step(15)
    with sqlite3.connect(database, isolation_level=None) as other:
        other.execute("BEGIN EXCLUSIVE")
        scene.until_step(70)
        other.execute("ROLLBACK")
    other.close()
    scene.end()
    scene.sync()
    scene.holds("FINISHED", code=0, at_least=80)
    scene.points_hold()


def test_a_store_that_is_thrown_away_in_the_middle_does_not_touch_the_run(scene, tmp_path):
    scene.launch().until_step(25)
    (tmp_path / "mlflow.db").unlink()
    scene.end()
    scene.holds("FINISHED", code=0, at_least=80, mlflow=None)


def test_a_store_that_is_no_database_does_not_touch_the_run(scene, tmp_path, empty_store):
    (tmp_path / "mlflow.db").write_bytes(b"no database" * 1000)
    scene.launch().end()
    scene.holds("FINISHED", code=0, at_least=80, mlflow=None)
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    assert scene.sync().returncode == 0
    scene.holds("FINISHED", code=0, at_least=80)
    scene.points_hold()
