"""A run is found by every name that a person has for it."""

import json
import time

import pytest
import yaml

from mvit.errors import RunDirError
from mvit.parent import locate as located
from mvit.parent.locate import RUNS, locate
from tests.conftest import CHECKOUT

MLFLOW_ID = "0123456789abcdef0123456789abcdef"


def make(path, *, mlflow=None):
    path.mkdir(parents=True)
    (path / "run.json").write_text("{}")
    if mlflow:
        record = {"store": "sqlite:///x.db", "experiment": "mvit", "run_id": mlflow}
        (path / "tracking.json").write_text(json.dumps(record))
    return path


@pytest.fixture
def runs(tmp_path):
    return tmp_path / "runs"


@pytest.fixture
def run(runs):
    make(runs / "other" / "20260101-000000-ffff", mlflow="f" * 32)
    return make(runs / "digits" / "20260101-000000-b280", mlflow=MLFLOW_ID)


@pytest.fixture
def sweep(runs):
    folder = runs / "digits" / "20260102-000000-5eed"
    for trial in ("0-20260102-000000-aaaa", "1-20260102-000000-bbbb"):
        make(folder / trial)
    (folder / "ledger.jsonl").write_text("")
    return folder


@pytest.mark.parametrize(
    "name",
    [
        "20260101-000000-b280",
        "b280",
        "digits-20260101-000000-b280",
        MLFLOW_ID,
        MLFLOW_ID[:8],
        "runs/digits/20260101-000000-b280",
        "./runs/digits/../digits/20260101-000000-b280/",
    ],
)
def test_a_run_has_many_names(monkeypatch, tmp_path, runs, run, name):
    monkeypatch.chdir(tmp_path)
    assert locate(name, runs=runs) == run


def test_a_path_is_absolute_or_from_where_the_person_stands_or_from_the_checkout(monkeypatch, tmp_path, runs, run):
    assert locate(str(run), runs=runs) == run
    monkeypatch.chdir(run)
    assert locate(".", runs=runs) == run
    monkeypatch.setattr(located, "PROJECT", tmp_path)
    monkeypatch.chdir("/")
    assert locate("runs/digits/20260101-000000-b280", runs=runs) == run


def test_sweeps_and_trials_are_found(runs, sweep):
    assert locate("5eed", runs=runs) == sweep
    assert locate("bbbb", runs=runs) == locate("1-bbbb", runs=runs) == sweep / "1-20260102-000000-bbbb"
    assert locate("digits-1-20260102-000000-bbbb", runs=runs) == sweep / "1-20260102-000000-bbbb"


def test_a_run_goes_before_another_folder_of_that_name(monkeypatch, tmp_path, runs, run):
    (tmp_path / "b280").mkdir()
    (tmp_path / "pictures").mkdir()
    monkeypatch.chdir(tmp_path)
    assert locate("b280", runs=runs) == run
    assert locate("pictures", runs=runs) == tmp_path / "pictures"  # the caller says what it is not
    assert locate("runs", runs=runs) == runs  # a folder above runs, for sync


def test_several_matches_are_named(monkeypatch, tmp_path, runs):
    monkeypatch.chdir(tmp_path)
    for number in range(7):
        make(runs / f"x{number}" / "20260101-000000-cafe")
    with pytest.raises(RunDirError) as error:
        locate("cafe", runs=runs)
    named = ", ".join(f"runs/x{number}/20260101-000000-cafe" for number in range(5))
    assert str(error.value) == f"cafe names 7 runs: {named} and 2 more; give the folder of one of them"


@pytest.mark.parametrize(
    ("name", "line"),
    [
        (
            "b28f",
            "no run or sweep is called 'b28f'; give its folder, its short id such as b280, or its MLflow run id;"
            " the newest run is runs/other/20260101-000000-ffff",
        ),
        ("b28", "no run or sweep is called 'b28'; did you mean runs/digits/20260101-000000-b280?"),
        ("runs/nothing", "runs/nothing is not a run folder: it does not exist"),
    ],
)
def test_no_match_is_one_line(monkeypatch, tmp_path, runs, run, name, line):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RunDirError) as error:
        locate(name, runs=runs)
    assert str(error.value) == line


def test_an_empty_name_and_no_runs_at_all_are_refused(monkeypatch, tmp_path):
    for name in ("", "nothing", "abcdef0123456789"):
        with pytest.raises(RunDirError, match="no run or sweep is called"):
            locate(name, runs=tmp_path / "none")


def test_a_torn_record_is_no_match(runs, run):
    (run / "tracking.json").write_text("{")
    with pytest.raises(RunDirError):
        locate(MLFLOW_ID, runs=runs)


def test_a_thousand_runs_are_no_obstacle(monkeypatch, tmp_path, runs):
    for number in range(1000):
        make(runs / f"x{number % 10}" / f"20260101-{number:06d}-{number:04x}", mlflow=f"{number:032x}")
    began = time.perf_counter()
    assert locate("03e7", runs=runs).name == "20260101-000999-03e7"
    named = time.perf_counter()
    assert locate(f"{999:032x}", runs=runs).name == "20260101-000999-03e7"
    print(f"by id {named - began:.3f} s, by MLflow id {time.perf_counter() - named:.3f} s")
    monkeypatch.setattr(located, "read_record", None)  # a name opens no file
    assert locate("03e7", runs=runs).name == "20260101-000999-03e7"


def test_runs_are_looked_for_where_the_configuration_puts_them():
    configured = yaml.safe_load((CHECKOUT / "conf/config.yaml").read_text())
    assert CHECKOUT / configured["runs_dir"] == RUNS
