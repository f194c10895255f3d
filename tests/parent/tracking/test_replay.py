"""Run folders sent to a store after the fact: real SQLite, real servers that go away."""

import json
import os
import shutil
import socket
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from mvit.cli.main import main
from mvit.files import read_json, write_json
from mvit.parent.tracking import replay
from mvit.parent.tracking.content import artifacts_of, draw_pictures
from mvit.parent.tracking.store import connect
from mvit.parent.tracking.sweep_run import open_sweep
from mvit.rundir.ending import record_end
from mvit.rundir.frozen import read_run
from mvit.rundir.journal import Journal
from mvit.rundir.ledger import Ledger, SweepRequest, TrialFrozen
from mvit.rundir.paths import RunDir
from mvit.rundir.result import TrainResult, write_result
from mvit.rundir.status import Stage, WorkerError, WorkerStatus, write_status
from tests.conftest import SWEEP
from tests.parent.tracking.test_live import TRACKING, points_in, python, wait_for

pytestmark = pytest.mark.mlflow

POINTS = [(step, {"train/loss": 1 / step, "perf/images_per_s": 100.0 + step}) for step in range(1, 21)]


def write(folder: RunDir, *, until: int = 20, after: int = 0) -> None:
    """The same journal for every folder, times included."""
    with folder.journal.open("ab") as file:
        for step, metrics in POINTS[after:until]:
            entry = {"time": 1.7e9 + step / 7, "step": step, "epoch": 0, "metrics": metrics}
            file.write(json.dumps(entry).encode() + b"\n")


def finish(folder: RunDir, result: TrainResult | None = None) -> None:
    """What a worker that came to the end leaves."""
    if result:
        write_result(folder, result)
    else:
        write_json(folder.result, {"metrics": {}})
    done = {"rank": 0, "host": "here", "pid": 1, "started": 1, "stage": "done", "step": 20, "marks": 0}
    write_json(folder.status / "0.json", {**done, "error": None, "time": 1.7e9})


def rows(store: str, query: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(store.removeprefix("sqlite:///"))) as database:
        return sorted(database.execute(query).fetchall())


def points(store: str, run_id: str) -> list[tuple[Any, ...]]:
    return rows(store, f"SELECT key, step, value, timestamp FROM metrics WHERE run_uuid = '{run_id}'")


def dump(store: str) -> dict[str, Any]:
    """Everything the store holds, and what lies beside it."""
    tables = ("runs", "metrics", "latest_metrics", "params", "tags", "experiments")
    root = Path(store.removeprefix("sqlite:///")).parent / "mlartifacts"
    files = {str(path): path.stat().st_mtime_ns for path in root.rglob("*") if path.is_file()}
    return {**{table: rows(store, f"SELECT * FROM {table}") for table in tables}, "files": files}


def run_of(folder: RunDir, store: str) -> Any:
    (run_id,) = rows(store, f"SELECT run_uuid FROM tags WHERE key='mvit.folder_id' AND value='{folder.path.name}'")
    return connect(store).get_run(run_id[0])


def sent(step: int) -> list[tuple[Any, ...]]:
    """The points of the journal until the step, as the store has them."""
    at = {number: int((1.7e9 + number / 7) * 1000) for number, _ in POINTS}
    return sorted((key, s, value, at[s]) for s, values in POINTS[:step] for key, value in values.items())


def test_after_a_sync_a_run_whose_server_was_down_has_the_points_of_one_whose_server_was_up(
    capsys, mirrored, run_folder, served, store, tmp_path
):
    up, midway, never = (run_folder(f"2026010{day}-000000-aaaa") for day in (1, 2, 3))
    served.up()
    for folder in (up, midway):
        write(folder, until=10)
    trackers = [mirrored(up, served.uri), mirrored(midway, served.uri)]
    wait_for(lambda: points_in(up) == points_in(midway) == 20)
    write(up, after=10)
    finish(up)
    assert draw_pictures(read_run(up)) is None  # as the launcher does
    assert trackers[0].finish("FINISHED", artifacts=artifacts_of(up, status="FINISHED"), tags={}) is None

    served.down()
    write(midway, after=10)
    write(never)
    trackers.append(mirrored(never, served.uri))
    for folder, tracker, part in ((midway, trackers[1], "not all mirrored"), (never, trackers[2], "not mirrored")):
        finish(folder)
        said = tracker.finish("FINISHED", artifacts=artifacts_of(folder, status="FINISHED"), tags={})
        assert said is not None
        assert said.startswith(f"MLflow: {part} (connection refused at {served.uri}); later: python -m mvit sync ")
        assert said.endswith(str(folder.path))
    assert read_json(never.tracking)["run_id"] is None
    half = read_json(midway.tracking)
    assert half["points"] == 20
    assert points(store, half["run_id"]) == sent(10)
    assert main(["sync", str(tmp_path / "runs")]) == 1
    assert capsys.readouterr() == (
        "",
        f"mvit: connection refused at {served.uri}; nothing is lost: run it again later\n",
    )

    served.up()
    assert main(["sync", str(tmp_path / "runs")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(": ")[2].partition(", run")[0] for line in lines] == [
        "nothing new, 40 already there",
        "20 points sent, 20 already there",
        "40 points sent, 0 already there",
    ]
    ids = [read_json(folder.tracking)["run_id"] for folder in (up, midway, never)]
    assert ids[1] == half["run_id"]
    assert points(store, ids[0]) == points(store, ids[1]) == points(store, ids[2]) == sent(20)
    runs = [connect(store).get_run(run_id) for run_id in ids]
    assert [run.info.status for run in runs] == ["FINISHED"] * 3
    assert runs[0].data.params == runs[1].data.params == runs[2].data.params
    names = [{key for key in run.data.tags if key != "mlflow.log-model.history"} for run in runs]
    assert names[0] == names[1] == names[2]
    files = [{file.path for file in connect(served.uri).list_artifacts(run_id)} for run_id in ids]
    assert files[0] == files[1] == files[2] >= {"run.json", "provenance.json", "metrics.jsonl", "result.json"}

    before = dump(store)
    assert main(["sync", str(tmp_path / "runs")]) == 0
    assert capsys.readouterr().out.endswith(f"mvit: nothing to do: 3 in {served.uri}\n")
    assert dump(store) == before


def test_a_second_sync_changes_nothing_even_where_tracking_json_was_lost(capsys, run_folder, store, tmp_path):
    folder = run_folder("20260101-000000-aaaa")
    write(folder)
    finish(folder)
    write_json(folder.confusion, {"counts": [[2] * 10] * 10})
    assert main(["sync", str(folder.path), "--uri", store]) == 0
    first = dump(store)
    run = run_of(folder, store)
    assert capsys.readouterr().out == (
        f"{folder.path}: 40 points sent, 0 already there, run {run.info.run_id[:8]} (FINISHED)\n"
    )
    assert points(store, run.info.run_id) == sent(20)
    assert run.info.status == "FINISHED"
    assert run.data.params["optimizer.kind"]
    assert {"host", "topology", "folder", "mlflow.user"} <= run.data.tags.keys()
    assert any(name.endswith("confusion_matrix.png") for name in first["files"])

    assert main(["sync", str(folder.path), "--uri", store]) == 0
    assert capsys.readouterr().out.endswith(f"mvit: nothing to do: 1 in {store}\n")
    assert dump(store) == first

    folder.tracking.unlink()
    assert main(["sync", str(folder.path), "--uri", store]) == 0
    assert "0 points sent, 40 already there" in capsys.readouterr().out  # its artifacts, which nobody remembers
    again = dump(store)
    assert {**again, "files": None} == {**first, "files": None}
    assert again["files"].keys() == first["files"].keys()


def test_a_run_that_cannot_be_sent_does_not_keep_the_others(capsys, run_folder, store):
    first, second = (
        run_folder(f"2026010{number}-000000-aaaa", f"tracking.experiment={name}")
        for number, name in ((1, "gone"), (2, "kept"))
    )
    for folder in (first, second):
        write(folder)
        finish(folder)
    client = connect(store)
    client.delete_experiment(client.create_experiment("gone"))
    assert main(["sync", str(first.path.parent), "--uri", store]) == 1
    out, err = capsys.readouterr()
    assert out.startswith(f"{second.path}: 40 points sent")
    restore = "the experiment 'gone' was deleted there; restore it, or set tracking.experiment"
    assert err == f"mvit: {first.path}: {restore}\n"


def test_what_is_mirrored_while_it_runs_is_found_again_without_tracking_json(mirrored, run_folder, store):
    folder = run_folder("20260101-000000-aaaa")
    write(folder, until=5)
    tracker = mirrored(folder, store)
    wait_for(lambda: points_in(folder) == 10)
    assert tracker.finish("KILLED", artifacts=[], tags={}) is None
    folder.tracking.unlink()
    write(folder, after=5)
    assert main(["sync", str(folder.path), "--uri", store]) == 0
    run = run_of(folder, store)
    assert points(store, run.info.run_id) == sent(20)
    assert run.info.status == "KILLED"  # the launcher knew


@pytest.mark.parametrize(
    ("end", "result", "status"),
    [
        (None, True, "FINISHED"),
        (None, False, "FAILED"),
        ("KILLED", False, "KILLED"),
        ("FAILED", True, "FAILED"),
    ],
)
def test_the_status_is_the_folders(end, result, status, run_folder, store):
    folder = run_folder("20260101-000000-aaaa")
    (folder.logs / "attempt-1").mkdir()
    (folder.logs / "attempt-1" / "launch.log").write_text("why")
    write(folder, until=1)
    if end:
        record_end(folder, end, exit_code=None)
    if result:
        finish(folder)
    error = WorkerError(type="ValueError", message="why", where=None, stage=Stage.STEP, time=1.0)
    stage, error = (Stage.DONE, None) if status == "FINISHED" else (Stage.FAILED, error)
    said = {"rank": 0, "host": "here", "pid": 1, "started": 0, "step": 3, "marks": 0, "time": 1.0}
    write_status(folder.status / "0.json", WorkerStatus(**said, stage=stage, error=error))
    assert main(["sync", str(folder.path), "--uri", store]) == 0
    run = run_of(folder, store)
    assert run.info.status == status
    assert run.data.tags.get("error") == (None if status == "FINISHED" else "ValueError: why")
    log = Path(run.info.artifact_uri) / "logs" / "attempt-1" / "launch.log"
    assert log.exists() == (status != "FINISHED")


def test_a_run_that_goes_on_is_left_to_its_launcher(capsys, mirrored, run_folder, store):
    folder = run_folder("20260101-000000-aaaa")
    write(folder, until=3)
    tracker = mirrored(folder, store)
    wait_for(lambda: points_in(folder) == 6)
    assert main(["sync", str(folder.path), "--uri", store]) == 0
    assert "skipped: it is being mirrored" in capsys.readouterr().out
    assert run_of(folder, store).info.status == "RUNNING"
    assert tracker.finish("FINISHED", artifacts=[], tags={}) is None


def test_a_run_whose_worker_lives_is_left_alone_though_nobody_mirrors_it(capsys, run_folder, store):
    folder = run_folder("20260101-000000-aaaa")
    worker = python(
        "import sys, time; from pathlib import Path; from mvit.worker.heartbeat import Heartbeat\n"
        "Heartbeat(Path(sys.argv[1]), rank=0); print('up', flush=True); time.sleep(60)",
        str(folder.status / "0.json"),
    )
    try:
        assert worker.stdout is not None
        assert worker.stdout.readline() == "up\n"
        assert main(["sync", str(folder.path), "--uri", store]) == 0
        assert f"skipped: its process {worker.pid} has not ended; stop it first" in capsys.readouterr().out
        assert rows(store, "SELECT * FROM runs") == []
    finally:
        worker.kill()
        worker.communicate()
    assert main(["sync", str(folder.path), "--uri", store]) == 0
    assert run_of(folder, store).info.status == "KILLED"


def test_another_store_gets_a_copy_and_the_record_of_the_first_stays(mirrored, run_folder, store, tmp_path):
    folder = run_folder("20260101-000000-aaaa")
    write(folder)
    assert mirrored(folder, store).finish("FINISHED", artifacts=[], tags={}) is None
    record = folder.tracking.read_bytes()
    other = f"sqlite:///{tmp_path}/other/mlflow.db"
    finish(folder)
    for _ in "ab":
        assert main(["sync", str(folder.path), "--uri", other, "--experiment", "theirs"]) == 0
        assert folder.tracking.read_bytes() == record
        run = run_of(folder, other)
        assert points(other, run.info.run_id) == sent(20)
        assert connect(other).get_experiment(run.info.experiment_id).name == "theirs"
    assert main(["sync", str(folder.path)]) == 0  # its own again
    assert run_of(folder, store).info.run_id == json.loads(record)["run_id"]


def test_trials_are_put_below_the_run_of_their_sweep_which_is_ended(capsys, run_folder, store, tmp_path):
    sweep = "20260101-000000-5eed"
    trials = [run_folder(f"{sweep}/2026010{day}-000000-aaaa") for day in (1, 2)]
    for best, folder in enumerate(trials, 90):
        write(folder, until=2)
        metrics = {"best/val_acc1": float(best)}
        finish(folder, TrainResult(task="train", steps=2, metrics=metrics, graphs={}, compiled=1))
    frozen = [
        TrialFrozen(trial=number, folder=trial.path.name, overrides=(f"seed={number}",))
        for number, trial in enumerate(trials)
    ]
    Ledger(trials[0].path.parent).append(SweepRequest(argv=(), overrides=(), sweep=SWEEP, slots=("",)), *frozen)
    for _ in "ab":
        assert main(["sync", str(tmp_path / "runs"), "--uri", store]) == 0
    assert "nothing to do" in capsys.readouterr().out
    parent = read_json(tmp_path / "runs" / "x" / sweep / "tracking.json")["run_id"]
    run = connect(store).get_run(parent)
    best = {"best/val_acc1": 91.0, "best/val_acc1_mean": 90.5, "best/val_acc1_n": 2.0, "trials/finished": 2.0}
    assert run.info.status == "FINISHED"
    others = {f"trials/{word}": 0.0 for word in ("failed", "killed", "not_started", "pruned")}
    assert run.data.metrics == {**best, **others, "best/val_acc1_std": pytest.approx(0.5**0.5)}
    assert {run_of(folder, store).data.tags["mlflow.parentRunId"] for folder in trials} == {parent}
    assert len(rows(store, "SELECT * FROM runs")) == 3


def test_a_sweep_that_cannot_be_closed_does_not_keep_the_others(capsys, monkeypatch, run_folder, store, tmp_path):
    sweeps = [f"2026010{number}-000000-5eed" for number in (1, 2)]
    for sweep in sweeps:
        trial = run_folder(f"{sweep}/20260101-000000-aaaa")
        write(trial, until=2)
        finish(trial)
        request = SweepRequest(argv=(), overrides=(), sweep=SWEEP, slots=("",))
        frozen = TrialFrozen(trial=0, folder=trial.path.name, overrides=("seed=0",))
        Ledger(trial.path.parent).append(request, frozen)
    close = replay.close_sweep

    def refused(sweep, **options):
        if sweep.name == sweeps[0]:
            raise RuntimeError("current state is deleted")
        close(sweep, **options)

    monkeypatch.setattr(replay, "close_sweep", refused)
    assert main(["sync", str(tmp_path / "runs"), "--uri", store]) == 1
    out, err = capsys.readouterr()
    assert err == f"mvit: {tmp_path}/runs/x/{sweeps[0]}: current state is deleted\n"
    assert f"{tmp_path}/runs/x/{sweeps[1]}: sweep FINISHED, run " in out


def test_the_run_of_a_sweep_is_found_again_without_its_tracking_json(store, tmp_path):
    sweep = tmp_path / "20260101-000000-5eed"
    first = open_sweep(sweep, tracking=TRACKING, uri=store, name="s", tags={})
    (sweep / "tracking.json").unlink()
    assert open_sweep(sweep, tracking=TRACKING, uri=store, name="s", tags={}) == first


def test_torn_lines_are_said_and_a_changed_folder_is_refused(capsys, run_folder, store, tmp_path):
    torn, changed = run_folder("20260101-000000-aaaa"), run_folder("20260102-000000-aaaa")
    write(torn, until=2)
    with torn.journal.open("ab") as file:
        file.write(b'{"ti\n7\n{"metrics": 1}\n{"time": "x", "step": 1, "metrics": {}}\n{"tim')
    content = read_json(changed.run)
    write_json(changed.run, {**content, "config": {**content["config"], "name": "other"}})
    assert main(["sync", str(tmp_path), "--uri", store]) == 1
    out, err = capsys.readouterr()
    assert "4 points sent" in out
    assert out.endswith("metrics.jsonl has lines that are torn, left out\n")
    assert err.count("\n") == 1
    assert "sha256 differs" in err


@pytest.mark.parametrize("content", ["[1]", '{"commit": 1, "user": [], "host": 7, "pid": "x", "status": 3}', None])
def test_files_of_another_kind_cost_what_they_said(capsys, run_folder, store, content):
    folder = run_folder("20260101-000000-aaaa")
    write(folder, until=2)
    for name in ("provenance.json", "end.json", "launcher.json", "error.json"):
        (folder.path / name).unlink(missing_ok=True)
        if content is None:
            os.mkfifo(folder.path / name)
        else:
            (folder.path / name).write_text(content)
    assert main(["sync", str(folder.path), "--uri", store]) == 0
    assert "4 points sent" in capsys.readouterr().out


def test_a_copy_of_a_run_folder_has_a_run_of_its_own(capsys, run_folder, store, tmp_path):
    folder = run_folder("20260101-000000-aaaa")
    write(folder, until=2)
    assert main(["sync", str(folder.path), "--uri", store]) == 0
    copy = shutil.copytree(folder.path, tmp_path / "copy")
    capsys.readouterr()
    assert main(["sync", str(copy), "--uri", store]) == 0
    assert "4 points sent, 0 already there" in capsys.readouterr().out


def test_nothing_to_send_is_said(capsys, run_folder, tmp_path):
    (tmp_path / "empty").mkdir()
    assert main(["sync", str(tmp_path / "empty")]) == 0
    assert capsys.readouterr().out == f"mvit: nothing to do, no run to send in {tmp_path / 'empty'}\n"
    assert main(["sync", str(tmp_path / "gone")]) == 2
    assert "gone is not a run folder: it does not exist" in capsys.readouterr().err
    run_folder("20260101-000000-aaaa", "tracking=none")
    assert main(["sync", str(tmp_path)]) == 0
    assert "skipped: tracking=none; pass --uri to send it" in capsys.readouterr().out


def test_a_store_that_hangs_is_one_line(capsys, monkeypatch, run_folder):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "2")
    folder = run_folder("20260101-000000-aaaa")
    write(folder, until=1)
    with closing(socket.create_server(("127.0.0.1", 0))) as silent:
        uri = f"http://127.0.0.1:{silent.getsockname()[1]}"
        begun = time.monotonic()
        assert main(["sync", str(folder.path), "--uri", uri]) == 1
    assert time.monotonic() - begun < 50
    assert capsys.readouterr().err == f"mvit: no answer from {uri}; nothing is lost: run it again later\n"


def test_a_resumed_journal_is_sent_from_where_it_was(mirrored, run_folder, store):
    folder = run_folder("20260101-000000-aaaa")
    write(folder, until=4)
    assert mirrored(folder, store).finish("KILLED", artifacts=[], tags={}) is None
    journal = Journal(folder.journal)
    journal.metrics({"train/loss": 1.0}, step=5, epoch=0)
    journal.close()
    assert read_json(folder.tracking)["points"] == 8
    assert main(["sync", str(folder.path)]) == 0
    assert len(points(store, run_of(folder, store).info.run_id)) == 9
