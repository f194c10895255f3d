"""A node that does not lead, beside a leader in the same folder."""

import pytest

from mvit.errors import ConfigError
from mvit.parent.freeze import freeze, plan_launch
from mvit.parent.host import this_host
from mvit.parent.nodes.follower import follow_leader
from mvit.parent.nodes.presence import Presence
from mvit.parent.request.compose import compose
from mvit.parent.slot import Slot
from mvit.parent.stop_request import StopRequest
from mvit.rundir.nodes import LEADER, read_node


def test_what_does_not_fit_this_machine_is_told_to_node_0(tmp_path):
    raw = compose(["topology=cpu_2", "topology.nodes=2", "limits.join_s=20.0"])
    run = freeze(plan_launch(raw, host=this_host()), tmp_path / "x/20261129-100000-abcd", made_of=({}, ""))
    run.folder.nodes.mkdir()
    slot = Slot(node_rank=1, cards=(0,))  # of a CPU
    with Presence(run.folder, rank=LEADER, token="t"), pytest.raises(ConfigError, match="does not fit the run"):
        follow_leader(run, slot=slot, stop=StopRequest(), say=lambda _: None)
    told = read_node(run.folder, 1)
    assert told is not None
    assert told.verdict is not None
    assert told.verdict.failure is not None
    assert (told.verdict.attempt, told.verdict.failure.kind) == (0, "config")
    assert "does not fit the run" in told.verdict.failure.message
