"""How long each worker has been where it is, and who holds up the others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mvit.config import LimitsConfig
from mvit.process import is_stopped
from mvit.rundir.ending import Failure

STALE_S = 60.0
"""Without a heartbeat, a process that was stopped is given up."""
BEHIND_S = 5.0
"""A rank that is behind for less is late, as any may be; one that hangs lets the others wait for MindSpore's limit."""
LEAVE_S = 60.0
"""From the last word of all workers to the end of their launch."""


@dataclass
class _Seen:
    place: tuple[str, int]
    place_since: float
    beat: float
    beat_since: float
    pid: int
    marks: int = 0
    """Places that it came by; all workers come by the same ones."""


class Watchdog:
    """Watches the stages of one attempt; times are the parent's own, which no clock that is set can move."""

    def __init__(self, limits: LimitsConfig, *, workers: int, now: float) -> None:
        self._limits = {
            "start": limits.join_s,
            "join": limits.join_s,
            "data": limits.data_s,
            "build": limits.data_s,
            "compile": limits.compile_s,
            "step": limits.step_s,
            "evaluate": limits.evaluate_s,
        }
        self._seen = {rank: _Seen(("start", 0), now, 0.0, now, 0) for rank in range(workers)}

    def look(self, statuses: list[dict[str, Any]], *, now: float, blind: bool = False) -> Failure | None:
        """What hangs, once a limit is passed; while `blind`, nobody can say how far it is, and no time passes."""
        if blind:
            for seen in self._seen.values():
                seen.place_since = seen.beat_since = now
            return None
        self._see(statuses, now=now)
        return self._stopped(now) or self._late(now) or self._staying(now)

    def waited_for(self, rank: int, statuses: list[dict[str, Any]], *, now: float) -> Failure | None:
        """Who hangs, if it is why `rank` gave up: MindSpore's collectives have a limit of their own."""
        self._see(statuses, now=now)
        for other, seen in self._seen.items():
            waited = now - seen.place_since
            behind = seen.marks < self._seen[rank].marks or is_stopped(seen.pid)
            if other != rank and seen.place[0] in self._limits and behind and waited > BEHIND_S:
                stage = _named(seen.place[0])
                message = f"rank {other} in {stage}{_step(seen)} for {waited:.0f} s, until rank {rank} gave it up"
                return Failure("hang", other, stage, message)
        return None

    def _see(self, statuses: list[dict[str, Any]], *, now: float) -> None:
        for status in statuses:
            seen = self._seen.get(status["rank"])
            if seen is None:  # the scheduler, which waits for ever
                continue
            # A join begins with the first process, not with the last one that finds its way into it.
            place = ("start" if status["stage"] == "join" else status["stage"], status["step"])
            if place != seen.place:
                seen.place, seen.place_since = place, now
            if status["time"] != seen.beat:
                seen.beat, seen.beat_since = status["time"], now
            seen.pid, seen.marks = status["pid"], status.get("marks", 0)

    def _stopped(self, now: float) -> Failure | None:
        # Not every process without a heartbeat: MindSpore may hold the interpreter's lock for a whole compilation.
        for rank, seen in self._seen.items():
            if seen.place[0] in self._limits and now - seen.beat_since > STALE_S and is_stopped(seen.pid):
                message = f"the process is stopped, without a heartbeat for {now - seen.beat_since:.0f} s"
                return Failure("hang", rank, _named(seen.place[0]), message)
        return None

    def _late(self, now: float) -> Failure | None:
        """Only who is behind can be late: the others wait for it, which is not their fault."""
        busy = {rank: seen for rank, seen in self._seen.items() if seen.place[0] in self._limits}
        if not busy:
            return None
        least = min(seen.marks for seen in busy.values())
        behind = {rank: seen for rank, seen in busy.items() if seen.marks == least}
        behind = {rank: seen for rank, seen in behind.items() if is_stopped(seen.pid)} or behind
        first = min(behind.values(), key=lambda seen: seen.place_since)
        stage = first.place[0]
        limit, waited = self._limits[stage], now - first.place_since
        if waited <= limit:
            return None
        ranks = f"rank{'s' if len(behind) > 1 else ''} {', '.join(map(str, behind))}"
        message = f"{ranks} in {_named(stage)}{_step(first)} for {waited:.0f} s, over limits.{_key(stage)}={limit:g}"
        return Failure("hang", next(iter(behind)) if len(behind) == 1 else None, _named(stage), message)

    def _staying(self, now: float) -> Failure | None:
        if any(s.place[0] in self._limits or now - s.place_since <= LEAVE_S for s in self._seen.values()):
            return None
        return Failure("hang", None, "end", f"all workers are done, their launch is not, for {LEAVE_S:g} s")


def _step(seen: _Seen) -> str:
    stage, done = seen.place
    return f" {done + 1}" if stage == "step" else ""


def _named(stage: str) -> str:
    return "join" if stage == "start" else stage


def _key(stage: str) -> str:
    return {"start": "join_s", "build": "data_s"}.get(stage, f"{stage}_s")
