"""When workers stop: all of them after the same step, whoever reads stop.json first."""

import pytest

from mvit.rundir.paths import RunDir
from mvit.rundir.stop import CURRENT_EPOCH, StopReason, write_stop
from mvit.worker.stop import StopAgreement

PAUSE = StopReason(kind="pause")
SIGNAL = StopReason(kind="signal", signal=2)


@pytest.fixture
def folder(tmp_path):
    return RunDir(tmp_path)


def agreement(folder, *, rank=0, world_size=1, step=0, last=50):
    """Epochs of ten steps."""
    return StopAgreement(
        folder,
        rank=rank,
        world_size=world_size,
        step=step,
        steps_per_epoch=10,
        end_of=lambda epoch: min(10 * epoch, last),
    )


def stops(of, *, begins=0, until=60):
    """The step that it stops after; None if it does not."""
    return next((step for step in range(begins + 1, until) if of.is_due(step)), None)


def test_nobody_stops_unasked(folder):
    assert stops(agreement(folder)) is None


@pytest.mark.parametrize("rank", [0, 1])
def test_what_is_wanted_after_an_epoch_before_the_start_needs_no_answer(folder, rank):
    write_stop(folder, PAUSE, after_epoch=3)
    of = agreement(folder, rank=rank, world_size=2)
    assert (stops(of), of.evaluates) == (30, True)
    assert folder.stop_at.exists() == (rank == 0)  # for one that looked before the file was there


def test_a_run_that_is_resumed_at_its_rung_has_nothing_to_do(folder):
    write_stop(folder, PAUSE, after_epoch=3)
    of = agreement(folder, step=30)
    assert not of.is_over(29, evaluated=True)
    assert not of.is_over(30, evaluated=False)  # its evaluation is due
    assert of.is_over(30, evaluated=True)
    assert of.is_over(31, evaluated=False)


@pytest.mark.parametrize(("at", "ends"), [(0, 10), (10, 20), (14, 20)])
def test_the_current_epoch_at_the_start_is_that_of_the_next_step(folder, at, ends):
    write_stop(folder, PAUSE, after_epoch=CURRENT_EPOCH)
    assert stops(agreement(folder, step=at), begins=at) == ends


@pytest.mark.parametrize(
    ("world_size", "asked_at", "ends"), [(1, 14, 20), (2, 14, 20), (1, 20, 20), (2, 18, 30), (2, 48, 50)]
)
def test_the_current_epoch_is_that_of_a_step_that_nobody_has_begun(folder, world_size, asked_at, ends):
    ranks = [agreement(folder, rank=rank, world_size=world_size) for rank in range(world_size)]
    ended = None
    for step in range(1, 51):
        if step == asked_at:
            write_stop(folder, PAUSE, after_epoch=CURRENT_EPOCH)
        due = [of.is_due(step) for of in ranks]
        assert len(set(due)) == 1
        if due[0]:
            ended = step
            break
    assert ended == ends
    assert all(of.evaluates for of in ranks)


@pytest.mark.parametrize("sees_the_rung", [True, False])
def test_a_signal_comes_before_a_rung_and_does_not_evaluate(folder, sees_the_rung):
    write_stop(folder, PAUSE, after_epoch=3)
    first = agreement(folder, world_size=2)
    if not sees_the_rung:
        write_stop(folder, SIGNAL)
    other = agreement(folder, rank=1, world_size=2)
    for step in range(1, 40):
        if step == 7:
            write_stop(folder, SIGNAL)
        due = [first.is_due(step), other.is_due(step)]
        assert due[0] == due[1]
        if due[0]:
            break
    assert step == (11 if sees_the_rung else 5)
    assert not first.evaluates
    assert not other.evaluates


def test_a_signal_shortly_before_a_rung_lets_all_come_to_it(folder):
    write_stop(folder, PAUSE, after_epoch=1)
    first = agreement(folder, world_size=2)
    write_stop(folder, SIGNAL)
    late = agreement(folder, rank=1, world_size=2)  # sees the signal alone
    write_stop(folder, PAUSE, after_epoch=1)
    for step in range(1, 20):
        if step == 8:
            write_stop(folder, SIGNAL)
        due = [first.is_due(step), late.is_due(step)]
        assert due[0] == due[1]
        if due[0]:
            break
    assert step == 10
    assert first.evaluates == late.evaluates
