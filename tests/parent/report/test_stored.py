"""Runs in a tracking store are listed as their folders are."""

import shutil

import pytest

from mvit.cli.main import main
from mvit.errors import RunDirError
from mvit.parent.report.listing import listing
from mvit.parent.report.record import read_records
from mvit.parent.report.results import jobs_of, results
from mvit.parent.report.select import select_stored
from mvit.rundir.result import PredictResult, write_result

pytestmark = pytest.mark.mlflow


@pytest.fixture
def store(every, empty_store, tmp_path, capsys):
    """All that can be sent of runs in every state."""
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    main(["sync", str(every), "--uri", uri])
    capsys.readouterr()
    return uri


def rows(grid, *columns):
    return [[row.get(column, "") for column in columns] for row in grid.rows]


def stored(uri, tmp_path, *names, where=None):
    room = tmp_path / "room"
    room.mkdir(exist_ok=True)
    return select_stored(names, where=where, uri=uri, experiment="mvit", room=room)


def test_a_store_lists_what_the_folders_do(every, store, tmp_path):
    here = [record for record in read_records([every]) if record.status != "FROZEN"]
    there = stored(store, tmp_path)
    columns = ("id", "status", "acc@1", "img/s", "note")
    assert rows(listing(there, with_trials=True), *columns) == rows(listing(here, with_trials=True), *columns)
    published = ("model name", "params(M)", "acc@top1", "img/s", "n", "run")
    assert rows(results(jobs_of(there)), *published) == rows(results(jobs_of(here)), *published)
    assert {row["admissible"] for row in results(jobs_of(there)).rows} == {"-"}, "its files are not all there"


@pytest.mark.parametrize(
    ("where", "ids"),
    [
        ("val/acc1>=98", ["0-ab00", "1-ab10"]),
        ("model=x_small", ["bbbb"]),
        ("status=FAILED", ["bbbb"]),
        ("optimizer.lr>=0.004", ["1-ab10"]),
    ],
)
def test_a_filter_compares_what_a_store_says(store, tmp_path, where, ids):
    assert [record.id for record in stored(store, tmp_path, where=where)] == ids


def test_a_prediction_in_a_store_has_no_accuracy(made, empty_store, tmp_path):
    folder = made("digits/20261129-100000-aaaa", acc=97.0).folder
    result = PredictResult(task="predict", metrics={}, graphs={}, count=3, unreadable=0, weights="raw")
    write_result(folder, result)
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    main(["sync", str(tmp_path), "--uri", uri])
    (record,) = stored(uri, tmp_path)
    assert (record.status, "best/val_acc1" in record.metrics) == ("FINISHED", False)


def test_a_fork_in_a_store_is_known_by_its_tag(admissible, empty_store, tmp_path):
    admissible("0001")
    admissible("0002", fork=True)
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    main(["sync", str(tmp_path), "--uri", uri])
    records = stored(uri, tmp_path)
    assert {record.forked_from for record in records} == {"", "20261128-100000-cafe"}
    assert len(jobs_of(records)) == 2


def test_runs_and_sweeps_are_named_by_their_short_ids(store, tmp_path):
    assert [record.id for record in stored(store, tmp_path, "aaaa")] == ["aaaa"]
    assert [record.id for record in stored(store, tmp_path, "ffff")] == ["0-ab00", "1-ab10"]
    with pytest.raises(RunDirError, match="zzzz names no run of the experiment mvit in that store"):
        stored(store, tmp_path, "zzzz")


def test_commands_show_a_store_and_say_where_it_cannot_be_read(store, capsys):
    assert main(["table", "--store", store, "--format", "csv"]) == 0
    assert "aaaa" in capsys.readouterr().out
    assert main(["ls", "--store", store, "--experiment", "other"]) == 2
    assert capsys.readouterr().err == "mvit: MLflow: there is no experiment 'other' there\n"
