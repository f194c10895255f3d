"""A run in the foreground of a terminal: signals, progress, and the report of its end."""

from __future__ import annotations

import time
from dataclasses import replace

from mvit import console
from mvit.config import PredictRun
from mvit.console import mvit_command, shown
from mvit.parent import signals
from mvit.parent.execute import execute
from mvit.parent.nodes.fewer import command_on_fewer
from mvit.parent.nodes.follower import follow_leader
from mvit.parent.progress import ProgressView
from mvit.parent.report.answers import report_answers
from mvit.parent.report.estimate import past_runs
from mvit.parent.report.exported import exported_lines
from mvit.parent.report.profiles import report_profiles
from mvit.parent.report.row import result_row
from mvit.parent.report.speeds import report_speeds
from mvit.parent.report.table import result_lines
from mvit.parent.slot import Slot
from mvit.parent.tracking.content import seen_with
from mvit.parent.tracking.names import name_of_run
from mvit.places import PROJECT
from mvit.rundir import checkpoints
from mvit.rundir.ending import RETRYABLE, Outcome
from mvit.rundir.frozen import Run
from mvit.rundir.result import BenchmarkResult, ExportResult, PredictResult, ProfileResult, read_result
from mvit.rundir.stop import StopReason


def follow(run: Run, *, slot: Slot, mirrored: bool = True, until_epoch: int | None = None) -> Outcome:
    """Execute the run, show how it goes, report its end. Ctrl-C, SIGTERM and SIGHUP stop it. Main thread only."""
    began = time.monotonic()
    past = past_runs(run.config, run.plan, PROJECT / run.config.runs_dir) if console.console.is_terminal else None
    with signals.stopping() as stop:
        with ProgressView(run, past=past) as view:
            outcome = execute(run, slot=slot, stop=stop, observer=view, mirrored=mirrored, until_epoch=until_epoch)
        if stop.reason and (stop.reason.kind == "signal" or outcome.status in ("KILLED", "PAUSED")):
            # Whatever became of this run, nothing is to come after it; but what ended by itself is not to go on.
            outcome = replace(outcome, exit_code=stop.reason.exit_code)
        _report(run, outcome, reason=stop.reason, seconds=time.monotonic() - began, mirrored=mirrored)
    return outcome


def accompany(run: Run, *, slot: Slot) -> Outcome:
    """Take part in the run as a node that does not lead, and report its end. Main thread only."""
    with signals.stopping() as stop:
        outcome = follow_leader(run, slot=slot, stop=stop, say=console.say)
    if outcome.failure:
        console.complain(outcome.failure.lines())
    console.say(f"mvit: {outcome.status}, {shown(run.folder.path)}")
    return outcome


def _report(run: Run, outcome: Outcome, *, reason: StopReason | None, seconds: float, mirrored: bool) -> None:
    folder = run.folder
    if outcome.status == "FINISHED" and (result := read_result(folder)):
        match result:
            case PredictResult():
                assert isinstance(run.config, PredictRun)
                report_answers(folder, run.config.task)
            case ExportResult():
                console.pairs(exported_lines(folder, result))
            case BenchmarkResult():
                report_speeds(run, result)
            case ProfileResult():
                report_profiles(folder, result)
            case _:
                console.pairs(result_lines(result_row(run, result)))
    resume = mvit_command("resume", folder.path)
    # Reads the checkpoint, which a finished run can do without.
    step = None if outcome.status == "FINISHED" else checkpoints.newest_step(folder)
    if outcome.status in ("KILLED", "PAUSED"):
        if reason:
            console.complain([f"stopped by {reason}"])
        place = "before its first checkpoint" if step is None else f"after step {step}"
        console.complain([f"stopped {place}; continue with: {resume}"])
    if outcome.failure:
        console.complain(outcome.failure.lines())
        if outcome.failure.kind in RETRYABLE:
            newest = "there is no checkpoint" if step is None else f"the newest checkpoint is that of step {step}"
            console.complain([f"{newest}; continue with: {resume}"])
            if step is not None and (fewer := command_on_fewer(run)):
                console.complain([f"with fewer machines, and the same losses: {fewer}"])
        else:
            console.complain([f"once the cause is fixed, continue with: {resume}"])
    console.say(f"mvit: {outcome.status} in {seconds:.0f} s, {shown(folder.path)}")
    if where := seen_with(folder, name=name_of_run(run)):
        console.say(f"mvit: {where}")
    elif outcome.status == "FINISHED" and mirrored:  # else its sweep says what to do next
        console.say(f"mvit: compare it with other runs: {mvit_command('table')}")
