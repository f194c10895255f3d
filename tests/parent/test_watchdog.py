"""The watchdog: which rank holds up the others, on one host and on several."""

import os
import socket

from mvit.config import TrainLimitsConfig
from mvit.parent.watchdog import Watchdog
from mvit.process import process_start
from mvit.rundir.status import Stage, WorkerStatus

LIMITS = TrainLimitsConfig(join_s=60.0, data_s=60.0, compile_s=60.0, step_s=60.0, evaluate_s=60.0)


def replace_limits(**limits):
    return LIMITS.model_copy(update=limits)


def status(rank, stage, marks, *, step=8, at=1.0, host=None, pid=None):
    return WorkerStatus(
        rank=rank,
        host=host or socket.gethostname(),
        pid=pid or os.getpid(),
        started=process_start(os.getpid()) or 0,
        stage=Stage(stage),
        step=step,
        marks=marks,
        error=None,
        time=at,
    )


def test_of_two_in_one_step_the_one_that_did_not_begin_it_is_late():
    watched = Watchdog(replace_limits(step_s=10.0), workers=2, now=0.0)
    both = [status(0, "step", 56), status(1, "step", 55)]
    assert watched.look(both, now=1.0) is None
    failure = watched.look(both, now=12.0)
    assert failure is not None
    assert failure.rank == 1


def test_who_gives_up_a_rank_that_is_behind_is_not_the_cause():
    watched = Watchdog(LIMITS, workers=2, now=0.0)
    assert watched.look([status(0, "step", 6), status(1, "compile", 5)], now=1.0) is None
    given_up = [status(0, "failed", 7), status(1, "compile", 5)]
    assert watched.waited_for(0, given_up, now=2.0) is None, "it is late, as any may be"
    failure = watched.waited_for(0, given_up, now=32.0)
    assert failure is not None
    assert (failure.kind, failure.rank, failure.stage) == ("hang", 1, "compile")
    assert failure.message == "rank 1 was in compile for 31 s when rank 0 gave up on it"


def test_two_that_are_equally_far_gave_each_other_up():
    watched = Watchdog(LIMITS, workers=2, now=0.0)
    assert watched.look([status(0, "step", 9), status(1, "step", 9)], now=1.0) is None
    assert watched.waited_for(0, [status(0, "failed", 9), status(1, "step", 9)], now=40.0) is None


def test_who_waits_for_another_one_is_not_late():
    watched = Watchdog(replace_limits(step_s=10.0, evaluate_s=100.0), workers=2, now=0.0)
    for at in range(60):
        first = ("step", 21) if at > 5 else ("evaluate", 20)
        assert (
            watched.look([status(0, *first, at=float(at)), status(1, "evaluate", 20, at=float(at))], now=float(at))
            is None
        )
    failure = watched.look([status(0, "step", 22, at=101.0), status(1, "evaluate", 20, at=101.0)], now=101.0)
    assert failure is not None
    assert (failure.rank, failure.stage) == (1, "evaluate")


def test_a_rank_of_another_host_is_judged_by_its_progress_alone():
    remote = [status(0, "step", 5), status(1, "step", 5, host="elsewhere", pid=2**22 - 1)]
    watched = Watchdog(replace_limits(step_s=10.0), workers=2, now=0.0)
    for at in range(9):
        assert watched.look(remote, now=float(at)) is None
    failure = watched.look(remote, now=12.0)
    assert failure is not None
    assert failure.message == "ranks 0, 1 in step 9 for 12 s, over limits.step_s=10"
