"""A store that a team shares: MLflow's server with passwords, on PostgreSQL, and eight runs that write at once."""

import os
import pwd
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress
from pathlib import Path

import pytest

from mvit.config import MlflowTracking
from mvit.parent.freeze import freeze, plan_launch
from mvit.parent.host import free_port, this_host
from mvit.parent.request.compose import compose
from mvit.parent.tracking.live import Tracker
from mvit.rundir.ending import record_end
from mvit.rundir.journal import Journal
from mvit.rundir.paths import create_run_dir
from mvit.rundir.result import TrainResult, write_result
from tests.conftest import CHECKOUT

pytestmark = [pytest.mark.mlflow, pytest.mark.long, pytest.mark.timeout(400)]

PASSWORD = "sesame-0pen-now"
WRITERS, STEPS = 8, 100
BINARIES = next((path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/initdb")), None)


@pytest.fixture(scope="module")
def database():
    """The URI of an empty PostgreSQL database of its own server."""
    if BINARIES is None:
        pytest.skip("needs PostgreSQL: apt install postgresql")
    # It refuses to run as root; the folders of the tests, and at times /tmp itself, are root's alone.
    root = os.geteuid() == 0
    as_user = ["runuser", "-u", "postgres", "--"] if root else []
    parent = Path(pwd.getpwnam("postgres").pw_dir) if root else Path(tempfile.gettempdir())
    room = parent / f"mvit-postgres-{os.getpid()}"
    data, port = room / "data", free_port()

    def run(*command, text=None):
        subprocess.run(
            [*as_user, *map(str, command)], input=text, text=True, stdout=subprocess.DEVNULL, check=True, cwd="/"
        )

    run("mkdir", "-m", "700", room)
    try:
        run("tee", room / "password", text=PASSWORD)
        run(BINARIES / "initdb", "-D", data, "-U", "mvit", "-A", "scram-sha-256", f"--pwfile={room / 'password'}")
        options = f"-p {port} -k {room} -c listen_addresses=127.0.0.1 -c fsync=off"
        run(BINARIES / "pg_ctl", "-D", data, "-w", "-o", options, "-l", room / "log", "start")
        try:
            yield f"postgresql://mvit:{PASSWORD}@127.0.0.1:{port}/postgres"
        finally:
            run(BINARIES / "pg_ctl", "-D", data, "-m", "immediate", "stop")
    finally:
        shutil.rmtree(room, ignore_errors=True)


@pytest.fixture(scope="module")
def server(database, tmp_path_factory):
    """The address of MLflow's server with basic authentication, without and with the password."""
    room = tmp_path_factory.mktemp("server")
    users = f"database_uri = sqlite:///{room}/users.db\nadmin_username = team\nadmin_password = {PASSWORD}\n"
    (room / "auth.ini").write_text(f"[mlflow]\ndefault_permission = READ\n{users}")
    environment = {
        **os.environ,
        "MLFLOW_AUTH_CONFIG_PATH": str(room / "auth.ini"),
        "MLFLOW_FLASK_SERVER_SECRET_KEY": "any",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    port = free_port()
    command = [
        *(sys.executable, "-m", "mlflow", "server", "--app-name", "basic-auth", "--port", str(port)),
        *("--workers", "2", "--backend-store-uri", database, "--artifacts-destination", str(room / "artifacts")),
    ]
    log = room / "server.log"
    with log.open("w") as out:
        process = subprocess.Popen(command, env=environment, cwd=room, start_new_session=True, stdout=out, stderr=out)
    address = f"127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 120
        while not answers(f"http://{address}/health"):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, "MLflow's server does not answer"
            time.sleep(0.3)
        yield f"http://{address}", f"http://team:{PASSWORD}@{address}"
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, 9)
        process.wait()


def answers(url):
    with suppress(OSError), urllib.request.urlopen(url, timeout=5) as answer:
        return answer.status == 200
    return False


def mvit(*arguments, store, cwd):
    environment = {**os.environ, "MLFLOW_TRACKING_URI": store, "PYTHONPATH": str(CHECKOUT)}
    command = [sys.executable, "-m", "mvit", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=cwd, check=False)


@pytest.fixture(scope="module")
def written(server, tmp_path_factory):
    """The folders of eight runs that were mirrored at once."""
    room = tmp_path_factory.mktemp("runs")
    folders = [create_run_dir(room / f"20261129-10000{number}-{number:04x}") for number in range(WRITERS)]
    tracking = MlflowTracking(kind="mlflow", uri=None, experiment="mvit")
    trackers = [
        Tracker(folder, tracking=tracking, uri=server[1], params={}, tags={"mlflow.runName": folder.path.name})
        for folder in folders
    ]
    with ExitStack() as stack:
        journals = [stack.enter_context(closing(Journal(folder.journal))) for folder in folders]
        for tracker in trackers:
            tracker.start()
        for step in range(1, STEPS + 1):
            for journal in journals:
                journal.metrics({"train/loss": 1.0 / step, "train/lr": 0.1}, step=step, epoch=1)
            time.sleep(0.01)
    with ThreadPoolExecutor(WRITERS) as pool:
        said = pool.map(lambda tracker: tracker.finish("FINISHED", artifacts=[], tags={}, timeout_s=200), trackers)
        assert list(said) == [None] * WRITERS
    return [folder.path for folder in folders]


def test_a_store_that_a_team_shares(server, written, tmp_path):
    """One test: the database, the server and eight runs take their time."""
    every_point_is_there_once(server, written)
    sync_sends_nothing_twice_and_the_table_is_made_from_what_it_sent(server, written, tmp_path)
    without_the_password_a_command_is_one_line(server, tmp_path)
    no_password_is_on_the_disk(written)


def every_point_is_there_once(server, written):
    from mvit.parent.tracking.store import connect

    client = connect(server[1])
    experiment = client.get_experiment_by_name("mvit")
    assert experiment
    runs = client.search_runs([experiment.experiment_id])
    assert sorted(str(run.info.run_name) for run in runs) == sorted(folder.name for folder in written)
    for run in runs:
        assert run.info.status == "FINISHED"
        points = client.get_metric_history(run.info.run_id, "train/loss")
        assert [(point.step, point.value) for point in points] == [(step, 1.0 / step) for step in range(1, STEPS + 1)]
    views = [key for key in experiment.tags if key.startswith("mlflow.sharedViewState.")]
    assert sorted(views) == [f"mlflow.sharedViewState.{name}" for name in ("efficiency", "results", "sweep")]


def sync_sends_nothing_twice_and_the_table_is_made_from_what_it_sent(server, written, tmp_path):
    planned = plan_launch(compose([]), host=this_host())
    run = freeze(planned, tmp_path / "runs/20261129-110000-beef", made_of=({}, ""))
    with closing(Journal(run.folder.journal)) as journal:
        journal.metrics({"val/acc1": 98.5}, step=1, epoch=1)
    metrics = {"val/acc1": 98.5, "best/val_acc1": 98.5, "perf/images_per_s": 640.0}
    write_result(run.folder, TrainResult(task="train", steps=1, metrics=metrics, graphs={}, compiled=1))
    record_end(run.folder, "FINISHED", exit_code=0)
    first, again = (mvit("sync", str(run.folder.path), "--uri", server[1], store="", cwd=tmp_path) for _ in "ab")
    assert (first.returncode, again.returncode) == (0, 0), first.stderr + again.stderr
    assert "nothing to do" in again.stdout
    table = mvit("table", "--store", server[1], store="sqlite:///elsewhere.db", cwd=tmp_path)
    assert (table.returncode, table.stderr) == (0, "")
    assert "98.50" in table.stdout
    assert "beef" in table.stdout
    listed = mvit("ls", "--store", store=server[1], cwd=tmp_path)
    assert (listed.returncode, listed.stderr) == (0, "")
    assert all(path.name.rpartition("-")[2] in listed.stdout for path in written)
    assert [path for path in tmp_path.rglob("*") if path.is_file() and PASSWORD.encode() in path.read_bytes()] == []


def without_the_password_a_command_is_one_line(server, tmp_path):
    listed = mvit("ls", "--store", server[0], store=server[0], cwd=tmp_path)
    assert listed.returncode == 2
    assert len(listed.stderr.splitlines()) == 1
    assert "401" in listed.stderr or "UNAUTHENTICATED" in listed.stderr or "not authenticated" in listed.stderr.lower()


def no_password_is_on_the_disk(written):
    room = written[0].parent
    files = [path for path in room.rglob("*") if path.is_file()]
    assert len(files) >= 2 * WRITERS
    assert [path for path in files if PASSWORD.encode() in path.read_bytes()] == []
