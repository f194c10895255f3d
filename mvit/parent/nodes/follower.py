"""Any other node of a run on several machines: waits for node 0, and starts what it calls for."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

from mvit.errors import ConfigError
from mvit.parent import supervise
from mvit.parent.command import make_command
from mvit.parent.graphs import store_of
from mvit.parent.host import this_host
from mvit.parent.kernels import library_of
from mvit.parent.nodes.presence import LOST_S, Presence, Seen
from mvit.parent.slot import Slot, bound, must_fit
from mvit.parent.stop_request import StopRequest
from mvit.rundir.ending import Failure, Outcome
from mvit.rundir.frozen import Run
from mvit.rundir.nodes import LEADER, Call, NodeStatus, NodeVerdict, read_call, read_node
from mvit.rundir.stop import read_stop

POLL_S = 0.2


def follow_leader(run: Run, *, slot: Slot, stop: StopRequest, say: Callable[[str], None]) -> Outcome:
    """Take part in the execution of a run that node 0 leads; returns what became of it.

    Raises `ConfigError` where this machine cannot; node 0 then hears of it too.
    """
    follower = _Follower(run, slot, stop, say)
    if (failure := follower.find_leader()) or stop:
        return _stopped(stop) if failure is None else Outcome("FAILED", 1, failure)
    with follower.presence:
        return follower.take_part()


class _Follower:
    def __init__(self, run: Run, slot: Slot, stop: StopRequest, say: Callable[[str], None]) -> None:
        self._run, self._folder, self._slot, self._stop, self._say = run, run.folder, slot, stop, say
        self._rank = slot.node_rank
        self._leader = Seen(now=time.monotonic())
        self._attempt = 0
        self.presence: Presence

    def find_leader(self) -> Failure | None:
        """Wait until node 0 shows a sign of life; None too when someone asks to stop meanwhile."""
        limit_s = self._run.config.limits.join_s
        deadline = time.monotonic() + limit_s
        self._say(f"mvit: node {self._rank} of {self._run.plan.nodes}, waiting for node 0")
        while not self._stop:
            status = self._look()
            if status and not _is_over(status) and self._leader.has_changed:
                self.presence = Presence(self._folder, rank=self._rank, token=status.token)
                return None
            if time.monotonic() > deadline:
                message = f"no sign of node 0 in {self._folder.path} within limits.join_s={limit_s:g}: is the run"
                return Failure("comm", None, "join", f"{message} executed there, and is this the same folder?")
            time.sleep(POLL_S)
        return None

    def take_part(self) -> Outcome:
        """Until node 0 says how the run ended, is lost, or someone stops this node."""
        try:
            must_fit(self._slot, self._run.plan)
            kernels = library_of(self._run.plan, say=self._say)
        except ConfigError as error:
            message = f"node {self._rank} ({self.presence.status.host}): {error.problems[0]}"
            self._report(Outcome("FAILED", 2, Failure("config", None, "join", message)))
            time.sleep(2 * POLL_S)
            raise
        while True:
            leader = self._look()
            if leader and leader.token != self.presence.status.token:  # it was killed, and began anew
                self._attempt = 0
                self.presence.join(leader.token)
            elif leader and leader.verdict and leader.verdict.is_over:
                return Outcome(leader.verdict.status, leader.verdict.exit_code, leader.verdict.failure)
            elif failure := self._lost(leader):
                return Outcome("FAILED", 1, failure)
            elif call := self._news():
                self._attempt = call.attempt
                slot = replace(bound(self._slot, self._run.plan), master_addr=call.master_addr)
                command = make_command(
                    self._run,
                    host=this_host(),
                    slot=slot,
                    port=call.port,
                    attempt=call.attempt,
                    kernels=kernels,
                    graphs=store_of(self._run.config.topology),
                )
                self._say(f"mvit: node {self._rank}: attempt {call.attempt}, master {call.master_addr}:{call.port}")
                outcome = supervise.run(
                    command,
                    self._folder,
                    limits=self._run.config.limits,
                    watch=self._watch,
                    stop=self._stop,
                    nodes=self,
                )
                self._report(outcome)
            elif self._stop:
                return _stopped(self._stop)
            time.sleep(POLL_S)

    def begin(self) -> None:
        """Nothing: node 0 called."""

    def trouble(self) -> Failure | None:
        """That node 0 is lost, or has given up the attempt."""
        leader = self._look()
        if leader and leader.token != self.presence.status.token:
            return Failure("killed", None, "launcher", f"the launcher of node 0 ({leader.host}) was started anew")
        if leader and leader.verdict and leader.verdict.attempt == self._attempt:
            return leader.verdict.failure
        return self._lost(leader)

    def _lost(self, leader: NodeStatus | None) -> Failure | None:
        host = f" ({leader.host})" if leader else ""
        if self._leader.silent_s(time.monotonic()) > LOST_S:
            return Failure("comm", None, "launcher", f"node 0{host} has given no sign of life for {LOST_S:.0f} s")
        return None

    def _watch(self, _: object) -> None:
        wanted = read_stop(self._folder)
        if wanted and wanted.after_epoch is None and not self._stop:
            self._stop.because(wanted.reason)

    def _look(self) -> NodeStatus | None:
        status = read_node(self._folder, LEADER)
        self._leader.look(status, now=time.monotonic())
        return status

    def _news(self) -> Call | None:
        """A call for this parent that it has not answered."""
        call, mine = read_call(self._folder), self.presence.status
        if call is None or call.token != mine.token or call.parents.get(self._rank) != mine.parent:
            return None
        return call if call.attempt > self._attempt else None

    def _report(self, outcome: Outcome) -> None:
        self.presence.report(
            NodeVerdict(
                attempt=self._attempt, status=outcome.status, exit_code=outcome.exit_code, failure=outcome.failure
            )
        )


def _is_over(leader: NodeStatus) -> bool:
    return leader.verdict is not None and leader.verdict.is_over


def _stopped(stop: StopRequest) -> Outcome:
    assert stop.reason is not None
    return Outcome(stop.reason.status, stop.reason.exit_code)
