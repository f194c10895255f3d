"""The schedule of a sweep: trials wait for slots, run side by side in processes of their own, and end."""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from mvit import console
from mvit.config import SlurmLaunch
from mvit.errors import ConfigError, RunDirError
from mvit.parent import orphans
from mvit.parent.execute import Silent, finish_tracking
from mvit.parent.slurm.lost import record_lost
from mvit.parent.stop_request import StopRequest
from mvit.parent.sweep.agenda import Agenda, Turn
from mvit.parent.sweep.ends import Ends
from mvit.parent.sweep.execution import Execution, Process, Submitted, Watch, submit_turn
from mvit.parent.sweep.ranking import measures
from mvit.parent.sweep.slots import Slots, workers_here
from mvit.parent.sweep.view import SweepView
from mvit.parent.tracking.live import Tracker, tracker_of
from mvit.rundir.ending import Ending, Failure, Outcome, read_ending, record_end
from mvit.rundir.frozen import Run
from mvit.rundir.job import read_job
from mvit.rundir.ledger import Event, Ledger, TrialEnded, TrialStarted
from mvit.rundir.objectives import values_of
from mvit.rundir.ownership import alive
from mvit.rundir.paths import RunDir
from mvit.rundir.stop import CURRENT_EPOCH, StopReason, read_stop, write_stop
from mvit.sweep_config import Objective

LOOK_EVERY_S = 0.2
TRY_AGAIN_S = 10.0
OUTAGE_S = 1800.0
"""How long a scheduler that takes no jobs is waited for."""
OURS = "mvit: "
"""How our own lines begin."""
LEAVE_S = 20.0
"""Longest wait for what a killed trial leaves behind."""


@dataclass
class _Running:
    turn: Turn
    taken: tuple[int, ...]
    execution: Execution
    tracker: Tracker | None
    before: Ending | None
    """How its folder says that an earlier turn ended."""
    asked_to_stop: int = 0


class Schedule:
    """Runs trials in slots, and tells the ledger and the view. Needs no main thread and no signal handlers."""

    def __init__(
        self,
        folder: Path,
        slots: Slots,
        *,
        objectives: Sequence[Objective],
        ends: Ends,
        stop: StopRequest,
        view: SweepView,
        overrides: Sequence[str] = (),
        taken_over: Collection[int] = (),
    ) -> None:
        """`overrides` are limits that only a launcher reads; the jobs of trials that are `taken_over` go on already."""
        self._overrides = overrides
        self._folder = RunDir(folder)
        self._slots, self._objectives, self._ends, self._stop, self._view = slots, objectives, ends, stop, view
        self._ledger = Ledger(folder)
        self._untold: list[Event] = []
        self._running: list[_Running] = []
        self._watch = Watch()
        self._taken_over = set(taken_over)
        self._refused_since: float | None = None
        self._not_before = 0.0
        """When a trial may be submitted again."""
        self._farewells: dict[int, threading.Thread] = {}
        """By trial: what its tracker still has to send."""

    def go(self, agenda: Agenda) -> dict[int, Outcome]:
        """Run the trials of the agenda as slots become free; returns how those ended that were started.

        Once a stop is requested, no trial starts, and those that run stop after a checkpoint.
        """
        pending: Turn | None = None
        outcomes: dict[int, Outcome] = {}
        while True:
            self._ends.look_at_the_clock()
            if self._folder.stop.exists():
                self._ends.wind_down()
            while self._slots.has_free and not self._is_over() and time.monotonic() >= self._not_before:
                pending = pending or self._next(agenda)
                if pending is None or (taken := self._slots.take(workers_here(pending.trial.run.plan))) is None:
                    break
                if not self._start(pending, taken):
                    break
                pending = None
            if not self._running and (pending is None or self._is_over()):
                break
            ended = {
                running.turn.trial.number: outcome
                for running in list(self._running)
                if (outcome := self._look_at(running, agenda)) is not None
            }
            outcomes |= ended
            with suppress(OSError):  # a terminal or a disk that is written to is no reason to end the sweep
                self._view.look()
            if not ended:  # a slot is free
                time.sleep(LOOK_EVERY_S)
        self._tell()  # what a full disk did not take before
        for farewell in self._farewells.values():
            farewell.join()
        return outcomes

    def _next(self, agenda: Agenda) -> Turn | None:
        try:
            found = agenda.next()
        except (RunDirError, OSError) as error:
            self._ends.no_trial_can_be_made(str(error))
            return None
        if found is None:
            return None
        turn, events = found
        self._tell(*events)
        return turn

    def _is_over(self) -> bool:
        """Whether no other trial is to start."""
        return bool(self._stop) or self._ends.reason is not None

    def _tell(self, *events: Event) -> None:
        """Append to the ledger. On a full disk, lines wait for the next one: folders say how trials ended."""
        self._untold += events
        if not self._untold:
            return
        try:
            self._ledger.append(*self._untold)
            self._untold.clear()
        except OSError as error:
            console.complain([f"cannot write {self._ledger.path}: {error.strerror}; the sweep continues"])

    def _start(self, turn: Turn, taken: tuple[int, ...]) -> bool:
        """Execute the turn in these slots; False where it cannot be submitted now."""
        trial = turn.trial
        if farewell := self._farewells.pop(trial.number, None):
            farewell.join()
        try:
            execution, before = self._execute(turn, taken)
        except (ConfigError, RunDirError) as error:
            self._slots.give_back(taken)
            self._refused(error)
            return False
        self._refused_since = None
        self._tell(TrialStarted(trial=trial.number, slot=taken[0], until_epoch=turn.until_epoch))
        tracker = tracker_of(trial.run)
        if tracker:
            tracker.start()
        self._running.append(_Running(turn, taken, execution, tracker, before))
        self._view.started(trial, where=_in_slot(self._slots, taken), until_epoch=turn.until_epoch)
        return True

    def _execute(self, turn: Turn, taken: Sequence[int]) -> tuple[Execution, Ending | None]:
        """What executes the turn, and how its folder says that an earlier one ended."""
        run, until, limits = turn.trial.run, turn.until_epoch, self._overrides
        before = read_ending(run.folder)
        if not isinstance(run.config.launch, SlurmLaunch):
            return Process(run, slot=self._slots.text(taken), until_epoch=until, overrides=limits), before
        if turn.trial.number in self._taken_over and (job := read_job(run.folder)):
            self._taken_over.discard(turn.trial.number)
            return Submitted(run, job, watch=self._watch), None  # it may have ended since it was looked at
        job = submit_turn(run, run.config.launch, until_epoch=until, overrides=limits)
        return Submitted(run, job, watch=self._watch), before

    def _refused(self, error: ConfigError | RunDirError) -> None:
        """A trial cannot be submitted; a scheduler that is away is waited for."""
        now = time.monotonic()
        since = self._refused_since or now
        if isinstance(error, ConfigError) or now - since > OUTAGE_S:
            self._ends.no_trial_can_be_made(str(error))
        elif self._refused_since is None:
            console.complain([f"{error}; trying again for {OUTAGE_S / 60:.0f} minutes"])
        self._refused_since, self._not_before = since, now + TRY_AGAIN_S

    def _look_at(self, running: _Running, agenda: Agenda) -> Outcome | None:
        """How the trial ended, if it has."""
        if (code := running.execution.poll()) is None:
            while running.asked_to_stop < min(max(self._stop.times, int(self._ends.is_stop)), 2):
                if not running.execution.ask_to_stop():
                    break
                running.asked_to_stop += 1
            if self._folder.stop.exists():
                _wind_down(running.turn.trial.run.folder)
            return None
        turn, trial = running.turn, running.turn.trial
        outcome = _outcome(trial.run, code, before=running.before, log=running.execution.log)
        failure = outcome.failure
        self._running.remove(running)
        self._slots.give_back(running.taken)
        at = turn.until_epoch if outcome.status == "PAUSED" else None
        values = values_of(trial.run, self._objectives, epoch=at)
        compared = values_of(trial.run, measures(self._objectives), epoch=at) if values else {}
        paused = agenda.ended(turn, outcome, compared)
        kind = failure.kind if failure else None
        self._tell(paused or TrialEnded(trial=trial.number, status=outcome.status, kind=kind, values=values))
        self._ends.take(outcome)
        self._view.ended(trial, outcome, values=values, after_epoch=turn.until_epoch if paused else None)
        if running.tracker:
            farewell = threading.Thread(target=self._mirror_end, args=(running, outcome), daemon=True)
            self._farewells[trial.number] = farewell
            farewell.start()
        return outcome

    def _mirror_end(self, running: _Running, outcome: Outcome) -> None:
        assert running.tracker is not None
        times = self._stop.times
        finish_tracking(
            running.tracker, running.turn.trial.run, outcome, Complaints(), give_up=lambda: self._stop.times > times
        )


def mirror_ended(run: Run) -> None:
    """Send MLflow the end of a trial that ended while nobody followed it."""
    ending = read_ending(run.folder)
    if ending and ending.mirrored is not True and (tracker := tracker_of(run)):
        tracker.start()
        outcome = Outcome(ending.status, ending.exit_code or 0, ending.error)
        finish_tracking(tracker, run, outcome, Complaints(), give_up=lambda: False)


class Complaints(Silent):
    """Follows nothing, and passes on what went wrong."""

    def complain(self, line: str) -> None:
        console.complain([line])


def _in_slot(slots: Slots, taken: Sequence[int]) -> str:
    return f" in slot {', '.join(map(str, taken))}" if len(slots.shares) > 1 else ""


def _outcome(run: Run, code: int, *, before: Ending | None, log: Path) -> Outcome:
    """How a turn of a trial ended, from its folder, which may have an end from `before`.

    One that was killed gets its end recorded here.
    """
    folder, deadline = run.folder, time.monotonic() + LEAVE_S
    while read_ending(folder) in (None, before) and alive(folder) and time.monotonic() < deadline:
        time.sleep(0.1)
    orphans.close_one(folder)
    with suppress(RunDirError):  # Slurm is away
        record_lost(folder)
    if (ending := read_ending(folder)) and (ending != before or ending.status == "FINISHED"):
        return Outcome(ending.status, code if code > 0 or ending.status == "FINISHED" else 1, ending.error)
    # It ended before it could claim its folder.
    line = _last_line(log)
    if code == 0 and not line.startswith(OURS):  # of a job, which says nothing by its code
        outcome = Outcome("KILLED", 1, Failure("killed", None, "launcher", f"its job ended before it began: {line}"))
    elif code < 0:
        outcome = Outcome("KILLED", 1, Failure("killed", None, "launcher", f"it was ended by signal {-code}"))
    else:
        failure = Failure("config", None, "launcher", line.removeprefix(OURS))
        outcome = Outcome("FAILED", code or 1, failure)
    record_end(folder, outcome.status, exit_code=outcome.exit_code, failure=outcome.failure)
    return outcome


def _wind_down(folder: RunDir) -> None:
    """Let the trial stop after its epoch; one that has just started may have removed what was said before."""
    wanted = read_stop(folder)
    if wanted is None or wanted.after_epoch not in (None, CURRENT_EPOCH):
        with suppress(OSError):
            write_stop(folder, StopReason(kind="pause"), after_epoch=CURRENT_EPOCH)


def _last_line(log: Path) -> str:
    with suppress(OSError):
        if lines := log.read_text(encoding="utf-8", errors="replace").splitlines():
            return lines[-1]
    return "no output"
