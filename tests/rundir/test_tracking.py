"""tracking.json: whole, or no record."""

import json

import pytest

from mvit.rundir.paths import RunDir
from mvit.rundir.tracking import TrackingRecord, read_record, write_record

RECORD = TrackingRecord(
    store="http://host:5000",
    experiment="mvit",
    experiment_id="1",
    run_id="0123",
    offset=7,
    points=2,
    artifacts={"a": "b"},
)


def test_what_is_written_is_read(tmp_path):
    folder = RunDir(tmp_path)
    assert read_record(folder) is None
    write_record(folder, RECORD)
    assert read_record(folder) == RECORD


@pytest.mark.parametrize(
    "change", [{"offset": -1}, {"offset": "7"}, {"run_id": 5}, {"store": None}, {"artifacts": ["a"]}, {"points": 1.5}]
)
def test_a_record_with_a_wrong_value_is_none(change, tmp_path):
    folder = RunDir(tmp_path)
    folder.tracking.write_text(json.dumps({**RECORD.model_dump(), "added": 1}))
    assert read_record(folder) == RECORD
    folder.tracking.write_text(json.dumps({**RECORD.model_dump(), **change}))
    assert read_record(folder) is None


@pytest.mark.parametrize("content", ["", "{", "[]", "null", "{}", '"x"', "[" * 100_000])
def test_a_file_that_is_torn_or_something_else_is_no_record(content, tmp_path):
    folder = RunDir(tmp_path)
    folder.tracking.write_text(content)
    assert read_record(folder) is None


def test_the_run_is_in_the_store_that_the_record_names_whatever_the_credentials():
    assert RECORD.run_in("http://me:s3cret@host:5000") == "0123"
    assert RECORD.run_in("http://host:5001") is None
    assert RECORD.model_copy(update={"run_id": None}).run_in("http://host:5000") is None
