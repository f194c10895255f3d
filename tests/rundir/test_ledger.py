"""The ledger of a sweep: whole lines, in order, whatever the last one met."""

import errno
import os

import pytest

from mvit.rundir.ledger import Ledger, SweepRequest, TrialEnded, TrialFrozen, TrialStarted, read_events
from mvit.rundir.paths import RunDir
from mvit.rundir.sweep import read_trials
from tests.conftest import SWEEP

EVENTS = [
    SweepRequest(
        argv=("launch.py", "-m", "seed=1,2"), overrides=("seed=choice(1,2)",), sweep=SWEEP, slots=("cores=0", "cores=1")
    ),
    TrialFrozen(trial=0, folder="0-a", overrides=("seed=1",)),
    TrialStarted(trial=0, slot=1),
    TrialEnded(trial=0, status="FAILED", kind="nan", values={"best/val_acc1": 12.5}),
]


def test_events_are_read_as_they_were_appended_one_line_each(tmp_path):
    Ledger(tmp_path).append(*EVENTS[:2])
    for event in EVENTS[2:]:
        Ledger(tmp_path).append(event)
    assert list(read_events(tmp_path)) == EVENTS
    assert len(RunDir(tmp_path).ledger.read_text().splitlines()) == 4


def test_a_trial_whose_line_is_torn_has_the_number_in_its_name(tmp_path):
    for name in ("0-a", "2-c", "10-b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "run.json").touch()
    Ledger(tmp_path).append(TrialFrozen(trial=2, folder="2-c", overrides=("seed=3",)))
    found = [(trial.trial, trial.folder) for trial in read_trials(tmp_path)]
    assert found == [(0, "0-a"), (2, "2-c"), (10, "10-b")]


def test_a_folder_without_a_ledger_has_no_events(tmp_path):
    assert list(read_events(tmp_path)) == []


@pytest.mark.parametrize("cut", [1, 5, 40])
def test_a_torn_last_line_costs_that_line_and_no_later_one(tmp_path, cut):
    Ledger(tmp_path).append(*EVENTS[:3])
    path = RunDir(tmp_path).ledger
    os.truncate(path, path.stat().st_size - cut)
    Ledger(tmp_path).append(EVENTS[3])
    found = list(read_events(tmp_path))
    assert found in ([*EVENTS[:2], EVENTS[3]], EVENTS)  # all but the newline may be there
    assert (found == EVENTS) == (cut == 1)


def test_a_line_that_the_disk_took_in_part_is_taken_back(tmp_path, monkeypatch):
    ledger = Ledger(tmp_path)
    ledger.append(*EVENTS[:2])
    before = RunDir(tmp_path).ledger.read_bytes()

    def full(file):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        ledger.append(EVENTS[2])
    monkeypatch.undo()
    assert RunDir(tmp_path).ledger.read_bytes() == before
    ledger.append(EVENTS[3])
    assert list(read_events(tmp_path)) == [*EVENTS[:2], EVENTS[3]]
