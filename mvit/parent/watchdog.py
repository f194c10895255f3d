"""The watchdog: how long each worker has been where it is, and which one holds up the others."""

from __future__ import annotations

from dataclasses import dataclass

from mvit.config import LimitsConfig
from mvit.process import is_stopped
from mvit.rundir.ending import Failure
from mvit.rundir.status import Stage, WorkerStatus

STALE_S = 60.0
"""A stopped process without a heartbeat for so long is given up."""
BEHIND_S = 5.0
"""A rank that is behind for less is merely late; one that hangs lets the others wait for MindSpore's own limit."""
LEAVE_S = 60.0
"""From the end of all workers to the end of their launch."""


@dataclass
class _Seen:
    """What was last seen of a rank, and since when by the parent's clock, which nobody can set."""

    stage: Stage
    step: int
    since: float
    beat: float
    beat_since: float
    status: WorkerStatus | None = None

    @property
    def marks(self) -> int:
        return self.status.marks if self.status else 0

    @property
    def is_stopped(self) -> bool:
        return self.status is not None and self.status.is_local and is_stopped(self.status.pid)

    def place(self) -> str:
        """The stage in words, a step with its number."""
        return f"step {self.step + 1}" if self.stage is Stage.STEP else _name(self.stage)


class Watchdog:
    """Watches the stages of one attempt, on any number of hosts."""

    def __init__(self, limits: LimitsConfig, *, workers: int, now: float) -> None:
        self._limits = limits
        self._seen = {rank: _Seen(Stage.START, 0, now, 0.0, now) for rank in range(workers)}

    def look(self, statuses: list[WorkerStatus], *, now: float, blind: bool = False) -> Failure | None:
        """Which rank hangs, once a limit is passed. While `blind`, no worker can report, and no time passes."""
        if blind:
            for seen in self._seen.values():
                seen.since = seen.beat_since = now
            return None
        self._see(statuses, now=now)
        return self._stopped(now) or self._late(now) or self._lingering(now)

    def waited_for(self, rank: int, statuses: list[WorkerStatus], *, now: float) -> Failure | None:
        """The rank that hangs, if that is why `rank` gave up: MindSpore's collectives have a limit of their own."""
        self._see(statuses, now=now)
        for other, seen in self._seen.items():
            waited = now - seen.since
            is_behind = seen.marks < self._seen[rank].marks or seen.is_stopped
            if other != rank and seen.stage.limit and is_behind and waited > BEHIND_S:
                message = f"rank {other} was in {seen.place()} for {waited:.0f} s when rank {rank} gave up on it"
                return Failure("hang", other, _name(seen.stage), message)
        return None

    def _see(self, statuses: list[WorkerStatus], *, now: float) -> None:
        for status in statuses:
            seen = self._seen.get(status.rank)
            if seen is None:  # the scheduler, which never ends
                continue
            # Joining starts with the first process, not with the last one that gets there.
            stage = Stage.START if status.stage is Stage.JOIN else status.stage
            if (stage, status.step) != (seen.stage, seen.step):
                seen.stage, seen.step, seen.since = stage, status.step, now
            if status.time != seen.beat:
                seen.beat, seen.beat_since = status.time, now
            seen.status = status

    def _stopped(self, now: float) -> Failure | None:
        # Not every process without a heartbeat: MindSpore may hold the interpreter's lock for a whole compilation.
        for rank, seen in self._seen.items():
            silent_s = now - seen.beat_since
            if seen.stage.limit and silent_s > STALE_S and seen.is_stopped:
                message = f"the process is stopped (SIGSTOP), without a heartbeat for {silent_s:.0f} s"
                return Failure("hang", rank, _name(seen.stage), message)
        return None

    def _late(self, now: float) -> Failure | None:
        """Only a rank that is behind can be late: the others wait for it, which is not their fault."""
        busy = {rank: seen for rank, seen in self._seen.items() if seen.stage.limit}
        if not busy:
            return None
        least = min(seen.marks for seen in busy.values())
        behind = {rank: seen for rank, seen in busy.items() if seen.marks == least}
        behind = {rank: seen for rank, seen in behind.items() if seen.is_stopped} or behind
        first = min(behind.values(), key=lambda seen: seen.since)
        key = first.stage.limit
        assert key is not None
        limit, waited = getattr(self._limits, key), now - first.since
        if waited <= limit:
            return None
        ranks = f"rank{'s' if len(behind) > 1 else ''} {', '.join(map(str, behind))}"
        message = f"{ranks} in {first.place()} for {waited:.0f} s, over limits.{key}={limit:g}"
        return Failure("hang", next(iter(behind)) if len(behind) == 1 else None, _name(first.stage), message)

    def _lingering(self, now: float) -> Failure | None:
        if any(seen.stage.limit or now - seen.since <= LEAVE_S for seen in self._seen.values()):
            return None
        return Failure("hang", None, "end", f"all workers ended {LEAVE_S:g} s ago, but msrun did not")


def _name(stage: Stage) -> str:
    """The stage as a failure names it."""
    return "join" if stage is Stage.START else stage.value
