"""Node 0 of a run on several machines: who takes part, when an attempt begins, and what became of it everywhere."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from contextlib import ExitStack
from types import TracebackType

from mvit.console import mvit_command
from mvit.parent.nodes.presence import LOST_S, Presence, Seen
from mvit.parent.nodes.remote_shell import RemoteShells
from mvit.rundir.ending import Failure, Outcome
from mvit.rundir.frozen import Run
from mvit.rundir.nodes import LEADER, Call, NodeStatus, NodeVerdict, read_node, write_call
from mvit.rundir.stop import StopReason, read_stop

POLL_S = 0.2
SETTLE_S = 10.0
"""Longest wait for what became of an attempt on the other nodes, once it has ended here."""
WRONG_CLOCK_S = 60.0
"""Clocks that differ by more are told; nothing is judged by them."""


class Leader:
    """The leader's side of nodes/. A context: closing it leaves the others to end by themselves."""

    def __init__(self, run: Run, *, address: str, say: Callable[[str], None], complain: Callable[[str], None]) -> None:
        self._run, self._folder, self.address = run, run.folder, address
        self._say, self._complain = say, complain
        self._token = secrets.token_hex(8)
        self._others = range(1, run.plan.nodes)
        self._called: dict[int, str] = {}
        """The parents that the last call was for, by rank."""
        self._seen: dict[int, Seen] = {}
        self._suspect: int | None = None
        """A node that is silent."""
        self._looked, self._attempt, self._port = 0.0, 0, 0
        self._stack = ExitStack()

    def __enter__(self) -> Leader:
        self._folder.nodes.mkdir(exist_ok=True)
        for path in self._folder.nodes.glob("*.json"):  # what an earlier execution left
            path.unlink(missing_ok=True)
        self._presence = self._stack.enter_context(Presence(self._folder, rank=LEADER, token=self._token))
        hosts = self._run.config.topology.hosts
        self._shells = self._stack.enter_context(RemoteShells(self._folder, hosts)) if hosts else None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def gather(self, *, watch: Callable[[], None], is_stopped: Callable[[], bool]) -> Failure | None:
        """Wait until all other nodes are there; None too when someone asks to stop meanwhile."""
        limit_s = self._run.config.limits.join_s
        deadline, told = time.monotonic() + limit_s, False
        here: dict[int, NodeStatus] = {}
        if self._shells:
            self._shells.forget_ended()
        self._seen = {rank: Seen(now=time.monotonic()) for rank in self._others}
        while len(here) < len(self._others) and not is_stopped():
            watch()
            now = time.monotonic()
            for rank in self._others:
                status = read_node(self._folder, rank)
                self._seen[rank].look(status, now=now)
                if status is None or status.token != self._token or not self._seen[rank].has_changed:
                    continue
                if status.verdict and status.verdict.status == "FAILED" and status.verdict.attempt == 0:
                    return status.verdict.failure
                if refusal := self._refusal(status):
                    return Failure("config", None, "join", refusal)
                here[rank] = status
            missing = [rank for rank in self._others if rank not in here]
            if missing and self._shells and (problem := self._shells.start(missing)):
                return Failure("config", None, "join", problem)
            if missing and not told and not self._shells:
                self._say(f"mvit: waiting for {_nodes(missing)}; start there: {self._command(missing)}")
                told = True
            if missing and now > deadline:
                message = f"{_nodes(missing)} did not report within limits.join_s={limit_s:g}; start there: "
                return Failure("comm", None, "join", message + self._command(missing))
            time.sleep(POLL_S)
        for status in here.values():
            if abs(ahead := status.time - time.time()) > WRONG_CLOCK_S:
                direction = "ahead of" if ahead > 0 else "behind"
                self._complain(
                    f"the clock of node {status.rank} ({status.host}) is {abs(ahead):.0f} s {direction} ours"
                )
        self._called = {rank: status.parent for rank, status in here.items()}
        return None

    def prepare(self, *, attempt: int, port: int) -> None:
        """Say which attempt comes next."""
        self._attempt, self._port, self._suspect = attempt, port, None

    def begin(self) -> None:
        """Ask the nodes that are there to start it."""
        call = Call(
            token=self._token,
            attempt=self._attempt,
            master_addr=self.address,
            port=self._port,
            parents=self._called,
        )
        write_call(self._folder, call)

    def trouble(self) -> Failure | None:
        """What keeps the attempt from going on, on another node; looks once a second."""
        now = time.monotonic()
        if now - self._looked < 1.0:
            return None
        self._looked = now
        for rank, parent in self._called.items():
            status = read_node(self._folder, rank)
            self._seen[rank].look(status, now=now)
            if verdict := self._verdict_of(status):
                if verdict.failure:
                    return verdict.failure
                continue
            host = f" ({status.host})" if status else ""
            if status and status.parent != parent:
                return Failure("killed", None, "launcher", f"the launcher of node {rank}{host} was started anew")
            if self._seen[rank].silent_s(now) > LOST_S:
                self._suspect = rank
                message = f"node {rank}{host} has given no sign of life for {LOST_S:.0f} s"
                return Failure("comm", None, "launcher", message)
        return None

    def settle(self, outcome: Outcome) -> Outcome:
        """The outcome of the attempt, once it is known what became of it on the other nodes."""
        self._report(outcome, is_over=False)
        deadline = time.monotonic() + SETTLE_S
        verdicts: list[NodeVerdict] = []
        while time.monotonic() < deadline:
            verdicts = [v for rank in self._called if (v := self._verdict_of(read_node(self._folder, rank)))]
            if len(verdicts) == len(self._called):
                break
            time.sleep(POLL_S)
        causes = [verdict.failure for verdict in verdicts if verdict.failure and verdict.failure.kind != "comm"]
        # A rank that lost the others knows only that.
        if outcome.failure and outcome.failure.kind == "comm" and causes:
            return Outcome("FAILED", outcome.exit_code, causes[0])
        return outcome

    def machine_of(self, failure: Failure) -> str | None:
        """Where an attempt failed, as a scheduler calls the machine; None where that is not known.

        A rank that lost another one tells of that, and is not where it failed.
        """
        per_node = self._run.plan.world_size // self._run.plan.nodes
        node = self._suspect if failure.rank is None or failure.kind == "comm" else failure.rank // per_node
        status = None if node is None else read_node(self._folder, node)
        return status.machine if status else None

    def asked_to_stop(self) -> StopReason | None:
        """Why stop.json asks for an end now, as another node does on which someone stops the run."""
        wanted = read_stop(self._folder)
        return wanted.reason if wanted and wanted.after_epoch is None else None

    def over(self, outcome: Outcome) -> None:
        """Tell the others how the run ended."""
        self._report(outcome, is_over=True)

    def _report(self, outcome: Outcome, *, is_over: bool) -> None:
        self._presence.report(
            NodeVerdict(
                attempt=self._attempt,
                status=outcome.status,
                exit_code=outcome.exit_code,
                failure=outcome.failure,
                is_over=is_over,
            )
        )

    def _verdict_of(self, status: NodeStatus | None) -> NodeVerdict | None:
        """Of this attempt."""
        if status is None or status.token != self._token or status.verdict is None:
            return None
        return status.verdict if status.verdict.attempt == self._attempt else None

    def _refusal(self, status: NodeStatus) -> str | None:
        """Why this node cannot take part."""
        mine = self._presence.status
        who = f"node {status.rank} ({status.host})"
        if status.host == mine.host:
            return f"{who} has the name of node 0: give each machine its own"
        for key, ours in mine.code.items():
            if (theirs := status.code.get(key)) != ours:
                return f"{who} has {key} {_short(theirs)}, node 0 ({mine.host}) has {_short(ours)}: make them the same"
        return None

    def _command(self, missing: list[int]) -> str:
        rank = str(missing[0]) if len(missing) == 1 else "K"
        return f"{mvit_command('run', self._folder.path)} --node-rank {rank} (the master is {self.address})"


def _nodes(ranks: list[int]) -> str:
    return f"node{'s' if len(ranks) > 1 else ''} {', '.join(map(str, ranks))}"


def _short(value: str | None) -> str:
    return (value or "none")[:10]
