"""nodes/: what the parents of a run on several machines tell each other.

    nodes/call.json   node 0 asks the others to start an attempt
    nodes/<k>.json    the parent of node k: that it is there, what it would run, what became of the attempt

They share a folder and nothing else. The pids and the clock of another machine mean nothing here: a parent is there
while the count in its file goes up.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Annotated

from pydantic import Field

from mvit.config import Frozen
from mvit.files import read_json_bytes, write_json
from mvit.rundir.ending import EndStatus, Failure
from mvit.rundir.paths import RunDir

LEADER = 0
"""The node that claims the run, mirrors it, decides on restarts and records its end."""


class Call(Frozen):
    """nodes/call.json."""

    token: str
    """Of the execution that calls: what an earlier one left here is none of its business."""
    attempt: int
    master_addr: str
    port: int
    parents: Annotated[dict[int, str], Field(strict=False)]
    """Whom it is for, by rank: who came later waits for the next one."""


class NodeVerdict(Frozen):
    """What became of an attempt on one node."""

    attempt: int
    status: EndStatus
    exit_code: int
    failure: Failure | None
    is_over: bool = False
    """Of the leader: that it is what became of the run, and no other attempt comes."""


class NodeStatus(Frozen):
    """nodes/<k>.json."""

    rank: int
    host: str
    machine: str
    """As a scheduler calls it."""
    parent: str
    """Drawn by each parent: two of them must not take the same place."""
    token: str
    """Of the execution that it takes part in; the leader's own."""
    beats: int
    code: dict[str, str | None]
    """Commit, patch and versions, which must be those of the leader."""
    time: float
    """By its own clock, to tell one that is wrong."""
    verdict: NodeVerdict | None = None


def call_path(folder: RunDir) -> Path:
    return folder.nodes / "call.json"


def node_path(folder: RunDir, rank: int) -> Path:
    return folder.nodes / f"{rank}.json"


def write_call(folder: RunDir, call: Call) -> None:
    write_json(call_path(folder), call.model_dump(mode="json"))


def read_call(folder: RunDir) -> Call | None:
    """The last call; None where there is none."""
    with suppress(OSError, ValueError):
        return Call.model_validate_json(read_json_bytes(call_path(folder)))
    return None


def write_node(folder: RunDir, status: NodeStatus) -> None:
    write_json(node_path(folder, status.rank), status.model_dump(mode="json"))


def read_node(folder: RunDir, rank: int) -> NodeStatus | None:
    """What the parent of a node last said; None where it said nothing."""
    with suppress(OSError, ValueError):
        return NodeStatus.model_validate_json(read_json_bytes(node_path(folder, rank)))
    return None
