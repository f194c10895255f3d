"""From the run folder to MLflow: real SQLite, real processes, a real server."""

import json
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

from mvit.config import MlflowTracking
from mvit.credentials import redacted
from mvit.files import read_json, write_json
from mvit.parent.tracking import server
from mvit.parent.tracking.content import location
from mvit.parent.tracking.live import LAST_ATTEMPTS
from mvit.parent.tracking.store import TrackingError, artifact_root, complaint_of, connect, database_of, store_uri
from mvit.parent.tracking.sweep_run import SweepSummary, close_sweep, open_sweep
from mvit.process import process_start
from tests.conftest import CHECKOUT

TRACKING = MlflowTracking(kind="mlflow", uri=None, experiment="mvit")


def the_run(uri: str) -> Any:
    """The one run of the store's experiment."""
    client = connect(uri)
    experiment = client.get_experiment_by_name("mvit")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    return run


def history(uri: str, run_id: str, key: str) -> list[tuple[int, float]]:
    return [(point.step, point.value) for point in connect(uri).get_metric_history(run_id, key)]


def wait_for(condition, timeout_s: float = 30.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.05)


def points_in(folder) -> int:
    return read_json(folder.tracking)["points"] if folder.tracking.exists() else -1


def python(code: str, *arguments: str, **options: Any) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.Popen(command, cwd=CHECKOUT, text=True, stdout=-1, stderr=-1, **options)


def test_importing_the_parents_modules_loads_neither_mlflow_nor_matplotlib():
    code = (
        "import sys, mvit.parent.tracking.live, mvit.parent.tracking.server;"
        "import mvit.parent.report.confusion, mvit.parent.provenance;"
        "print(sorted({'mlflow', 'matplotlib', 'numpy', 'mindspore'} & set(sys.modules)))"
    )
    out, err = python(code).communicate(timeout=60)
    assert (out, err) == ("[]\n", "")


def test_the_store_is_the_configured_one_then_the_environments_then_the_checkouts(monkeypatch, tmp_path):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert store_uri(TRACKING, tmp_path) == f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://team:5000")
    assert store_uri(TRACKING, tmp_path) == "http://team:5000"
    configured = TRACKING.model_copy(update={"uri": "sqlite:///other.db"})
    assert store_uri(configured, tmp_path) == f"sqlite:///{tmp_path}/other.db"


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("http://me:s3cret@host:5000/x", "http://host:5000/x"),
        ("postgresql://me:s3/cr@et@host/db", "postgresql://host/db"),
        ("http://s3cret@host", "http://host"),
        ("postgresql://host/db?user=me&password=s3cret&a=b", "postgresql://host/db?user=me&password=***&a=b"),
        ("http://host:5000", "http://host:5000"),
        ("sqlite:////a/b@c.db", "sqlite:////a/b@c.db"),
    ],
)
def test_a_uri_is_shown_without_its_password(uri, expected):
    assert redacted(uri) == expected


def test_artifacts_stand_beside_a_sqlite_file_and_a_server_places_its_own():
    assert artifact_root("sqlite:////data/mlflow.db", "mvit") == "/data/mlartifacts/mvit"
    assert artifact_root("sqlite:////data/mlflow.db", "../a b/c") == "/data/mlartifacts/_a_b_c"
    assert artifact_root("postgresql://host/db", "mvit") == str(CHECKOUT / "mlartifacts" / "mvit")
    assert artifact_root("https://host", "mvit") is None
    assert database_of("sqlite:///:memory:") is None


def test_a_tracker_that_was_never_started_says_so(tracker, store_down):
    assert "was not started" in tracker(store_down).finish("FINISHED", artifacts=[], tags={})


@pytest.fixture
def store_down(closed_port) -> str:
    return f"http://me:s3cret@127.0.0.1:{closed_port}"


@pytest.mark.mlflow
def test_points_are_mirrored_exactly_once_while_the_journal_grows(folder, journal, store, tracker):
    mirror = tracker(store, params={"optimizer.lr": "0.1"}, tags={"mlflow.runName": "grows", "empty": ""})
    mirror.start()
    journal.event("started")
    journal.metrics({"train/loss": 2.0, "perf/images_per_s": 10.0}, step=1, epoch=0)
    wait_for(lambda: points_in(folder) == 2)
    for step in range(2, 1502):  # more than a batch
        journal.metrics({"train/loss": 1.0 / step}, step=step, epoch=1)
    wait_for(lambda: points_in(folder) > 2)
    journal.metrics({"val/acc1": 50.0}, step=1501, epoch=1)
    assert mirror.finish("FINISHED", artifacts=[], tags={}) is None

    run = the_run(store)
    assert history(store, run.info.run_id, "train/loss") == [(1, 2.0), *((s, 1.0 / s) for s in range(2, 1502))]
    assert history(store, run.info.run_id, "val/acc1") == [(1501, 50.0)]
    record = read_json(folder.tracking)
    assert record == {
        "store": store,
        "experiment": "mvit",
        "experiment_id": run.info.experiment_id,
        "run_id": run.info.run_id,
        "offset": folder.journal.stat().st_size,
        "points": 1503,
        "artifacts": {},
        "model_id": None,
    }
    assert run.info.run_name == "grows"
    assert run.data.params == {"optimizer.lr": "0.1"}
    assert run.data.tags["mlflow.source.name"] == "launch.py"
    assert run.data.tags["mlflow.user"]
    assert "empty" not in run.data.tags
    entry = json.loads(folder.journal.read_text().splitlines()[1])
    (first, *_) = connect(store).get_metric_history(run.info.run_id, "train/loss")
    assert first.timestamp == int(entry["time"] * 1000)
    assert location(folder, name="grows") == f"mlflow.db, experiment mvit, run grows ({run.info.run_id[:8]})"


@pytest.mark.mlflow
def test_a_torn_last_line_waits_for_its_rest(folder, store, tracker):
    line = b'{"time": 1.5, "step": 3, "epoch": 0, "metrics": {"train/loss": 4.0}}\n'
    mirror = tracker(store)
    mirror.start()
    with folder.journal.open("ab", buffering=0) as file:
        file.write(line + line[:20])
        wait_for(lambda: points_in(folder) == 1)
        time.sleep(0.3)
        assert read_json(folder.tracking)["offset"] == len(line)
        file.write(line[20:].replace(b"3", b"4"))
    assert mirror.finish("FINISHED", artifacts=[], tags={}) is None
    assert history(store, the_run(store).info.run_id, "train/loss") == [(3, 4.0), (4, 4.0)]


@pytest.mark.mlflow
def test_a_line_torn_by_a_full_disk_is_reported_and_the_run_still_ends(folder, journal, store, tracker):
    journal.metrics({"train/loss": 1.0}, step=1, epoch=0)
    with folder.journal.open("ab") as file:
        file.write(b'{"time": 1.5, "ste\n')
    mirror = tracker(store)
    mirror.start()
    said = mirror.finish("FAILED", artifacts=[], tags={})
    assert said == "MLflow: not all mirrored (metrics.jsonl has lines that are torn); the run folder keeps everything"
    run = the_run(store)
    assert run.info.status == "FAILED"
    assert history(store, run.info.run_id, "train/loss") == [(1, 1.0)]


@pytest.mark.mlflow
@pytest.mark.parametrize("status", ["FINISHED", "FAILED", "KILLED"])
def test_a_run_ends_with_its_true_status_and_tags(store, tracker, status):
    mirror = tracker(store)
    mirror.start()
    assert mirror.finish(status, artifacts=[], tags={"error": "x" * 9000}) is None
    run = the_run(store)
    assert run.info.status == status
    assert run.info.end_time >= run.info.start_time
    assert len(run.data.tags["error"]) == 8000


@pytest.mark.mlflow
def test_many_and_long_parameters_are_kept_up_to_the_limit(store, tracker):
    params = {f"a.b{index}": str(index) for index in range(250)} | {"long": "y" * 7000, "empty": ""}
    mirror = tracker(store, params=params)
    mirror.start()
    assert mirror.finish("FINISHED", artifacts=[], tags={}) is None
    assert the_run(store).data.params == params | {"long": "y" * 5997 + "..."}


@pytest.mark.mlflow
def test_artifacts_lie_as_in_the_run_folder_and_one_that_is_gone_keeps_no_other(folder, store, tracker):
    files = [folder.run, folder.logs / "0.json", folder.path / "gone.json", folder.status / "0.json"]
    for index, file in enumerate(files):
        file.write_text(str(index))
    files[2].unlink()
    mirror = tracker(store)
    mirror.start()
    said = mirror.finish("FINISHED", artifacts=files, tags={})
    assert "gone.json" in said
    assert "\n" not in said
    run = the_run(store)
    assert run.info.status == "FINISHED"
    root = Path(run.info.artifact_uri)
    assert root.is_relative_to(Path(store.removeprefix("sqlite:///")).parent / "mlartifacts" / "mvit")
    found = {str(path.relative_to(root)): path.read_text() for path in root.rglob("*") if path.is_file()}
    assert found == {"run.json": "0", "logs/0.json": "1", "status/0.json": "3"}


@pytest.mark.mlflow
def test_a_folder_mirrored_before_continues_its_run_and_points_sent_again_are_no_new_ones(
    folder, journal, store, tracker
):
    journal.metrics({"train/loss": 2.0, "val/loss": 2.5}, step=1, epoch=0)
    first = tracker(store, params={"a": "1"})
    first.start()
    assert first.finish("KILLED", artifacts=[], tags={}) is None

    write_json(folder.tracking, {**read_json(folder.tracking), "offset": 0})  # crashed before it was written
    journal.metrics({"train/loss": 1.0}, step=2, epoch=0)
    second = tracker(store, params={"a": "changed", "b": "2"})
    second.start()
    wait_for(lambda: second.news() is not None)
    assert the_run(store).info.status == "RUNNING"
    assert second.finish("FINISHED", artifacts=[], tags={}) is None

    run = the_run(store)
    assert run.info.status == "FINISHED"
    assert run.data.params == {"a": "1", "b": "2"}
    assert history(store, run.info.run_id, "train/loss") == [(1, 2.0), (2, 1.0)]
    assert history(store, run.info.run_id, "val/loss") == [(1, 2.5)]


@pytest.mark.mlflow
def test_a_tracking_json_that_cannot_be_written_makes_no_second_run_and_keeps_none_open(
    folder, journal, store, tracker
):
    folder.tracking.mkdir()
    journal.metrics({"train/loss": 2.0}, step=1, epoch=0)
    mirror = tracker(store)
    mirror.start()
    said = mirror.finish("FAILED", artifacts=[], tags={})
    assert "tracking.json" in said
    run = the_run(store)
    assert run.info.status == "FAILED"
    assert history(store, run.info.run_id, "train/loss") == [(1, 2.0)]


@pytest.mark.mlflow
def test_a_run_deleted_from_the_store_is_mirrored_anew(journal, store, tracker):
    journal.metrics({"train/loss": 2.0}, step=1, epoch=0)
    for _ in range(2):
        mirror = tracker(store)
        mirror.start()
        assert mirror.finish("FINISHED", artifacts=[], tags={}) is None
        run = the_run(store)
        assert history(store, run.info.run_id, "train/loss") == [(1, 2.0)]
        connect(store).delete_run(run.info.run_id)


@pytest.mark.mlflow
def test_a_sweep_is_one_parent_run_with_its_trials_below(store, tmp_path, tracker):
    sweep = tmp_path / "sweep"
    opened = [
        open_sweep(sweep, tracking=TRACKING, uri=store, name="a sweep", tags={"mvit.kind": "sweep"}) for _ in "ab"
    ]
    assert opened[0] == opened[1] == read_json(sweep / "tracking.json")["run_id"]
    trial = tracker(store, parent_run_id=opened[0])
    trial.start()
    assert trial.finish("FINISHED", artifacts=[], tags={}) is None
    assert connect(store).get_run(opened[0]).info.status == "RUNNING"
    close_sweep(sweep, uri=store, status="FAILED", summary=SweepSummary({"best/val_acc1": 97.5}))

    client = connect(store)
    parent = client.get_run(opened[0])
    assert parent.info.status == "FAILED"
    assert parent.info.run_name == "a sweep"
    assert parent.data.metrics == {"best/val_acc1": 97.5}
    (child,) = client.search_runs([parent.info.experiment_id], f"tags.`mlflow.parentRunId` = '{opened[0]}'")
    assert child.info.status == "FINISHED"


ONE_RUN = """
import sys
from pathlib import Path
from mvit.credentials import redacted
from mvit.config import MlflowTracking
from mvit.parent.tracking.live import Tracker
from mvit.rundir.journal import Journal
from mvit.rundir.paths import create_run_dir
folder = create_run_dir(Path(sys.argv[2]))
Journal(folder.journal).metrics({"train/loss": 1.0}, step=1, epoch=0)
tracking = MlflowTracking(kind="mlflow", uri=None, experiment="mvit")
tracker = Tracker(folder, tracking=tracking, uri=sys.argv[1], params={"a": "1"}, tags={})
tracker.start()
print(tracker.finish("FINISHED", artifacts=[folder.journal], tags={}, timeout_s=200))
"""


@pytest.mark.mlflow
def test_four_processes_that_make_one_store_at_once_all_land_in_one_experiment(tmp_path):
    uri = f"sqlite:///{tmp_path}/new/mlflow.db"
    runs = [python(ONE_RUN, uri, str(tmp_path / f"run{index}")) for index in range(4)]
    assert [run.communicate(timeout=250) for run in runs] == [("None\n", "")] * 4
    records = [read_json(tmp_path / f"run{index}" / "tracking.json") for index in range(4)]
    assert len({record["run_id"] for record in records}) == 4
    (experiment_id,) = {record["experiment_id"] for record in records}
    client = connect(uri)
    assert client.get_experiment(experiment_id).name == "mvit"
    assert [run.info.status for run in client.search_runs([experiment_id])] == ["FINISHED"] * 4
    for record in records:
        assert history(uri, record["run_id"], "train/loss") == [(1, 1.0)]


@pytest.mark.mlflow
def test_a_store_that_is_down_costs_one_line_and_seconds(capfd, folder, journal, store_down, tracker, tmp_path):
    journal.metrics({"train/loss": 1.0}, step=1, epoch=0)
    mirror = tracker(store_down)
    mirror.start()
    begun = time.monotonic()
    said = mirror.finish("FAILED", artifacts=[folder.journal], tags={"error": "x"})
    assert time.monotonic() - begun < 55
    where = store_down.replace("me:s3cret@", "")
    assert said == f"MLflow: not mirrored (connection refused at {where}); later: python -m mvit sync {folder.path}"
    assert location(folder, name="a run") is None
    unsent = {"experiment_id": None, "run_id": None, "offset": 0, "points": 0, "artifacts": {}, "model_id": None}
    assert read_json(folder.tracking) == {"store": where, "experiment": "mvit", **unsent}

    said = complaint_of(lambda: open_sweep(tmp_path / "s", tracking=TRACKING, uri=store_down, name="s", tags={}))
    assert said == f"MLflow: connection refused at {where}"
    with pytest.raises(TrackingError, match="names no run"):
        close_sweep(tmp_path / "s", uri=store_down, status="FAILED", summary=SweepSummary({}))
    assert capfd.readouterr() == ("", "")


@pytest.mark.mlflow
def test_a_store_that_hangs_is_waited_for_no_longer_than_asked(tracker):
    with closing(socket.create_server(("127.0.0.1", 0))) as silent:
        mirror = tracker(f"http://127.0.0.1:{silent.getsockname()[1]}")
        mirror.start()
        begun = time.monotonic()
        said = mirror.finish("FINISHED", artifacts=[], tags={}, timeout_s=4)
        assert time.monotonic() - begun < 30
    assert "no answer from http://127.0.0.1" in said


@pytest.mark.mlflow
def test_a_store_that_is_slow_gets_all_the_time_there_is(store, tracker, monkeypatch):
    from mlflow.exceptions import MlflowException

    slow = iter(range(2 * LAST_ATTEMPTS))

    def answer(uri):
        if next(slow, None) is not None:
            raise MlflowException("API request failed") from TimeoutError("read timed out")
        return connect(uri)

    monkeypatch.setattr("mvit.parent.tracking.live.connect", answer)
    monkeypatch.setattr("mvit.parent.tracking.live.LAST_PAUSE_S", 0.01)
    mirror = tracker(store)
    mirror.start()
    assert mirror.finish("FINISHED", artifacts=[], tags={}) is None
    assert the_run(store).info.status == "FINISHED"


@pytest.mark.mlflow
def test_a_store_that_cannot_be_made_is_one_line(tmp_path, tracker):
    (tmp_path / "file").write_text("")
    mirror = tracker(f"sqlite:///{tmp_path}/file/mlflow.db")
    mirror.start()
    said = mirror.finish("FINISHED", artifacts=[], tags={})
    assert said.startswith("MLflow: not mirrored (")
    assert "\n" not in said


@pytest.mark.mlflow
def test_an_experiment_that_was_deleted_is_named(store, tracker):
    client = connect(store)
    client.delete_experiment(client.create_experiment("mvit"))
    mirror = tracker(store)
    mirror.start()
    assert "the experiment 'mvit' was deleted there" in mirror.finish("FINISHED", artifacts=[], tags={})


def test_a_store_that_is_a_server_is_not_served_again(capsys):
    assert server.serve("https://me:s3cret@host:5000") == 0
    assert capsys.readouterr().out == "mvit: the store is already a server: https://host:5000\n"


def test_a_taken_port_is_one_line_that_names_a_free_one(capsys, tmp_path):
    with closing(socket.create_server(("127.0.0.1", 0))) as other:
        port = other.getsockname()[1]
        assert server.serve(f"sqlite:///{tmp_path}/mlflow.db", port=port) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"mvit: port {port} of 127.0.0.1 is taken; use --port ")
    assert err.count("\n") == 1
    assert not (tmp_path / "mlflow.db").exists()


def test_a_terminal_that_closes_ends_the_server_and_its_children(closed_port, tmp_path):
    pids = tmp_path / "pids"
    code = f"""
import sys
from mvit.parent.tracking import server
server._command = lambda host, port: ["bash", "-c", "sleep 600 & echo $$ $! > {pids}; wait"]
sys.exit(server.serve("postgresql://x/y", port={closed_port}))
"""
    served = python(code)
    wait_for(lambda: pids.exists() and len(pids.read_text().split()) == 2)
    served.send_signal(signal.SIGHUP)
    out, err = served.communicate(timeout=20)
    assert served.returncode == 128 + signal.SIGHUP
    assert ("press Ctrl-C" in out, err) == (True, "")
    assert [process_start(int(pid)) for pid in pids.read_text().split()] == [None, None]


@pytest.mark.mlflow
def test_a_served_store_takes_a_run_with_its_artifacts_and_tells_nobody_the_password(
    capfd, closed_port, folder, journal, monkeypatch, store, tracker
):
    for name in ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    code = (
        "import sys; from mvit.parent.tracking.server import serve; sys.exit(serve(sys.argv[1], port=int(sys.argv[2])))"
    )
    served = python(code, store, str(closed_port))
    try:
        base = f"http://127.0.0.1:{closed_port}"
        wait_for(lambda: answers(f"{base}/health"), timeout_s=90)
        assert b"<title>MLflow</title>" in fetch(f"{base}/")
        journal.metrics({"val/acc1": 93.5}, step=7, epoch=1)
        mirror = tracker(f"http://me:s3cret@127.0.0.1:{closed_port}")
        mirror.start()
        assert mirror.finish("FINISHED", artifacts=[folder.journal], tags={}) is None
        record = read_json(folder.tracking)
        assert record["store"] == base
        place = f"{base}/#/experiments/{record['experiment_id']}/runs/{record['run_id']}"
        assert location(folder, name="a run") == place
        artifact = f"{base}/get-artifact?path=metrics.jsonl&run_id={record['run_id']}"
        assert fetch(artifact) == folder.journal.read_bytes()
        served.send_signal(signal.SIGINT)
        out, err = served.communicate(timeout=20)
    finally:
        served.kill()
        served.wait()
    assert served.returncode == 130
    assert out.startswith(f"mvit: {base} in about ten seconds, on {store}; press Ctrl-C to stop it\n")
    assert "Traceback" not in err
    assert not answers(f"{base}/health")
    run = the_run(store)
    assert run.info.status == "FINISHED"
    assert history(store, run.info.run_id, "val/acc1") == [(7, 93.5)]
    everything = folder.tracking.read_text() + "".join(capfd.readouterr()) + out + err + str(run.to_dictionary())
    assert "s3cret" not in everything
    assert not processes_with(f"--port {closed_port}")


def fetch(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=20) as answer:
        return answer.read()


def answers(url: str) -> bool:
    with suppress(OSError):
        return fetch(url) == b"OK"
    return False


def processes_with(words: str) -> list[str]:
    found: list[str] = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            command = path.read_bytes().replace(b"\0", b" ").decode()
            if words in command:
                found.append(command)
    return found
