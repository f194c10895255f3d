import json
import multiprocessing
import os
from pathlib import Path

import pytest

from mvit.data import dataset
from mvit.errors import RunDirError
from mvit.files import read_json, read_mapping, write_json
from mvit.parent.plan import make_plan
from mvit.rundir import paths
from mvit.rundir.frozen import Run, read_run, write_run
from mvit.rundir.journal import Journal, JournalReader
from tests.parent.test_plan import HOST


@pytest.fixture
def frozen(tmp_path, configured):
    config = configured()
    folder = paths.create_run_dir(tmp_path / "runs" / "a" / paths.new_run_id())
    plan = make_plan(config, host=HOST, facts=dataset.survey(config.data).facts)
    run = Run(folder, config, plan)
    write_run(run)
    return run


def test_what_was_frozen_is_read_back_equal(frozen):
    assert read_run(frozen.folder) == frozen


def test_a_changed_run_file_is_refused(frozen):
    folder = frozen.folder
    folder.run.write_text(folder.run.read_text().replace('"seed": 1', '"seed": 2'))
    with pytest.raises(RunDirError, match="was edited after the run was frozen"):
        read_run(folder)


def test_a_run_of_another_schema_is_refused(frozen):
    folder = frozen.folder
    content = json.loads(folder.run.read_text())
    folder.run.write_text(json.dumps({**content, "schema": 99}))
    with pytest.raises(RunDirError, match="has schema 99"):
        read_run(folder)


@pytest.mark.parametrize("content", ["", "{", "[]", "{}"])
def test_a_torn_run_file_is_one_line(frozen, content):
    folder = frozen.folder
    folder.run.write_text(content)
    with pytest.raises(RunDirError, match="is not a run folder"):
        read_run(folder)


def test_a_short_id_is_never_a_number_on_a_command_line(configured):
    ids = {paths.new_run_id().rpartition("-")[2] for _ in range(200)}
    assert all(len(one) == 4 and int(one, 16) and one[0].isalpha() for one in ids)
    assert configured("init=weights", f"init.checkpoint={min(ids)}").init.checkpoint.endswith(min(ids))


def test_a_folder_is_never_reused(tmp_path):
    paths.create_run_dir(tmp_path / "x")
    with pytest.raises(RunDirError, match="cannot create the run folder"):
        paths.create_run_dir(tmp_path / "x")


def test_a_place_that_is_no_folder_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunDirError, match="Not a directory"):
        paths.create_run_dir(tmp_path / "file" / "runs")


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "x.json"
    write_json(path, {"a": 1})
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(path, {"a": float("nan")})
    assert read_json(path) == {"a": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_a_torn_last_line_waits_for_its_rest(tmp_path):
    path = tmp_path / "metrics.jsonl"
    journal, reader = Journal(path), JournalReader(path)
    assert list(reader.entries()) == []
    journal.metrics({"a": 1.0}, step=1, epoch=1)
    with path.open("a") as file:
        file.write('{"time": 1, "ev')
    assert [entry["step"] for entry in reader.entries()] == [1]
    with path.open("a") as file:
        file.write('ent": "x"}\n')
    assert [entry["event"] for entry in reader.entries()] == ["x"]
    assert list(reader.entries()) == []
    with path.open("a") as file:
        file.write('{"torn\n')
    journal.event("after")
    assert [entry["event"] for entry in reader.entries()] == ["after"]
    journal.close()


def _write_many(path: Path, mark: str) -> None:
    for _ in range(20):
        write_json(path, {"mark": mark * 1000})


def test_concurrent_writers_never_show_half_a_file(tmp_path):
    path = tmp_path / "x.json"
    write_json(path, {"mark": "a" * 1000})
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_write_many, args=(path, mark)) for mark in "bc"]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        assert len(set(read_json(path)["mark"])) == 1
    assert [writer.exitcode for writer in writers] == [0, 0]


@pytest.mark.parametrize(
    ("content", "words"), [(b"[" * 200_000, "nested too deep"), (b"{", "Expecting"), (b"\xff", "utf-8")]
)
def test_a_file_that_is_no_json_is_a_value_error(tmp_path, content, words):
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(ValueError, match=words):
        read_json(tmp_path / "x.json")


def test_a_huge_file_is_not_read(tmp_path):
    (tmp_path / "x.json").touch()
    os.truncate(tmp_path / "x.json", 1 << 40)
    with pytest.raises(ValueError, match="is larger than 64 MiB"):
        read_json(tmp_path / "x.json")


def test_a_pipe_in_the_place_of_a_file_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "x.json")
    assert read_mapping(tmp_path / "x.json") is None
