"""Node 0, beside files that other nodes would write."""

import time
from dataclasses import replace

import pytest

from mvit.parent.freeze import freeze, plan_launch
from mvit.parent.host import this_host
from mvit.parent.nodes import leader as module
from mvit.parent.nodes.leader import Leader
from mvit.parent.request.compose import compose
from mvit.rundir.ending import Failure, Outcome
from mvit.rundir.nodes import NodeVerdict, read_call, read_node, write_node

HANG = Failure("hang", 1, "step", "rank 1 in step 9 for 99 s")
LOST = Failure("comm", 0, "step", "AllReduce failed")


class Other:
    """Node 1, as a file that this test writes."""

    def __init__(self, run, **fields):
        mine = read_node(run.folder, 0)
        assert mine is not None
        given = {"rank": 1, "host": "there", "machine": "n1", "parent": "p", "beats": 1, "time": time.time(), **fields}
        self.folder, self.status = run.folder, mine.model_copy(update=given)
        self.beat()

    def beat(self, **fields):
        update = {"beats": self.status.beats + 1, **fields}
        self.status = self.status.model_copy(update=update)
        write_node(self.folder, self.status)


@pytest.fixture
def run(tmp_path):
    raw = compose(["topology=cpu_2", "topology.nodes=2", "limits.join_s=2.0"])
    return freeze(plan_launch(raw, host=this_host()), tmp_path / "runs/x/20261129-100000-abcd", made_of=({}, ""))


@pytest.fixture
def told():
    return []


@pytest.fixture
def leader(run, told, monkeypatch):
    monkeypatch.setattr(module, "POLL_S", 0.01)
    monkeypatch.setattr(module, "SETTLE_S", 0.3)
    with Leader(run, address="10.0.0.1", say=told.append, complain=told.append) as one:
        yield one


def gathered(leader, other):
    """What becomes of the gathering while the other node beats."""
    return leader.gather(watch=other.beat, is_stopped=lambda: False)


def test_a_node_that_is_there_is_called(leader, run, told):
    assert gathered(leader, Other(run)) is None
    leader.prepare(attempt=3, port=21000)
    leader.begin()
    call = read_call(run.folder)
    assert call is not None
    assert (call.attempt, call.master_addr, call.port, call.parents) == (3, "10.0.0.1", 21000, {1: "p"})
    assert len(told) <= 1


def test_a_node_that_only_left_a_file_is_not_there(leader, run, told):
    Other(run)
    failure = leader.gather(watch=lambda: None, is_stopped=lambda: False)
    assert failure is not None
    assert failure.kind == "comm"
    assert failure.message.startswith("node 1 did not report within limits.join_s=2; start there: ")
    assert "--node-rank 1" in told[0]


def test_a_node_of_an_earlier_execution_is_not_there(leader, run):
    failure = gathered(leader, Other(run, token="another"))
    assert failure is not None
    assert "did not report" in failure.message


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"code": {"mindspore": "2.9.0"}}, "node 1 (there) has commit none, node 0"),
        ({"host": None}, "has the name of node 0: give each machine its own"),
    ],
)
def test_a_node_that_cannot_take_part_is_refused_at_once(leader, run, fields, says):
    mine = read_node(run.folder, 0)
    assert mine is not None
    if "host" in fields:
        fields = {"host": mine.host}
    failure = gathered(leader, Other(run, **fields))
    assert failure is not None
    assert failure.kind == "config"
    assert says in failure.message


def test_a_version_that_differs_is_named(leader, run):
    mine = read_node(run.folder, 0)
    assert mine is not None
    failure = gathered(leader, Other(run, code={**mine.code, "mindspore": "2.9.0"}))
    assert failure is not None
    assert "has mindspore 2.9.0, node 0" in failure.message
    assert failure.message.endswith("make them the same")


def test_what_a_node_refuses_is_the_failure(leader, run):
    refusal = Failure("config", None, "join", "node 1 (there): kernels: 'avx512' is what it was planned with")
    verdict = NodeVerdict(attempt=0, status="FAILED", exit_code=2, failure=refusal)
    assert gathered(leader, Other(run, verdict=verdict)) == refusal


def test_a_clock_that_is_wrong_is_told(leader, run, told):
    assert gathered(leader, Other(run, time=time.time() - 300)) is None
    assert told[-1].startswith("the clock of node 1 (there) is 300 s behind ours")


@pytest.fixture
def called(leader, run):
    """Node 1, which has been called for attempt 1."""
    other = Other(run)
    assert gathered(leader, other) is None
    leader.prepare(attempt=1, port=21000)
    leader.begin()
    return other


def test_a_node_that_gives_no_sign_of_life_is_lost(leader, called, monkeypatch):
    assert leader.trouble() is None
    monkeypatch.setattr(module, "LOST_S", 1.0)
    time.sleep(1.1)
    failure = leader.trouble()
    assert failure is not None
    assert (failure.kind, failure.message) == ("comm", "node 1 (there) has given no sign of life for 1 s")
    assert leader.machine_of(failure) == "n1"


@pytest.mark.parametrize(("failure", "machine"), [(HANG, "n1"), (replace(HANG, rank=0), "n0"), (LOST, None)])
def test_a_rank_that_lost_the_others_is_not_where_it_failed(leader, called, run, monkeypatch, failure, machine):
    mine = read_node(run.folder, 0)
    assert mine is not None
    write_node(run.folder, mine.model_copy(update={"machine": "n0"}))
    assert leader.machine_of(failure) == machine


def test_the_failure_of_a_node_is_that_of_the_attempt(leader, called):
    called.beat(verdict=NodeVerdict(attempt=1, status="FAILED", exit_code=1, failure=HANG))
    assert leader.trouble() == HANG
    # Who lost the other knows only that.
    assert leader.settle(Outcome("FAILED", 1, LOST)).failure == HANG
    other = replace(LOST, kind="nan")
    assert leader.settle(Outcome("FAILED", 1, other)).failure == other


def test_what_became_of_an_earlier_attempt_is_nothing_to_this_one(leader, called):
    called.beat(verdict=NodeVerdict(attempt=0, status="FAILED", exit_code=1, failure=HANG))
    assert leader.trouble() is None
    assert leader.settle(Outcome("FAILED", 1, LOST)).failure == LOST


def test_the_others_hear_how_the_run_ended(leader, called, run):
    leader.over(Outcome("FAILED", 1, LOST))
    mine = read_node(run.folder, 0)
    assert mine is not None
    assert mine.verdict == NodeVerdict(attempt=1, status="FAILED", exit_code=1, failure=LOST, is_over=True)
