"""A sweep, from its folder to its end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from mvit import console
from mvit.config import RunConfig, TrainRun
from mvit.parent import signals
from mvit.parent.sweep.agenda import Agenda
from mvit.parent.sweep.closing import close
from mvit.parent.sweep.ends import Ends
from mvit.parent.sweep.mirror import SweepMirror
from mvit.parent.sweep.pruning import Pruning
from mvit.parent.sweep.ranking import measures
from mvit.parent.sweep.schedule import Schedule
from mvit.parent.sweep.slots import Slots
from mvit.parent.sweep.source import Source
from mvit.parent.sweep.trials import Trial
from mvit.parent.sweep.view import SweepView
from mvit.rundir.ledger import SweepRequest
from mvit.rundir.objectives import values_of
from mvit.rundir.ownership import owned
from mvit.rundir.paths import RunDir
from mvit.rundir.state import Status, run_status

NOTHING: Mapping[int, int | None] = MappingProxyType({})


def run_sweep(
    folder: Path,
    trials: Sequence[Trial],
    *,
    requested: SweepRequest,
    slots: Slots,
    example: RunConfig,
    others: Sequence[Trial] = (),
    source: Source | None = None,
    overrides: Sequence[str] = (),
    taken_over: Mapping[int, int | None] = NOTHING,
) -> int:
    """Run these trials of the sweep in its slots, and those that are drawn, and close it; returns the exit code.

    `others` are not to be run now, but those of them that are paused may be promoted. A trial that cannot be run here
    and now does not keep the others. `example` is a run of the sweep, `overrides` are limits for all that is run,
    `taken_over` are the trials whose jobs go on already, by number, with the epoch that each goes to.
    """
    sweep = requested.sweep
    ends = Ends(sweep.fail_fast, sweep.max_failures_in_a_row, sweep.max_hours)
    epochs = example.train.epochs if isinstance(example, TrainRun) else 0
    agenda = Agenda(trials, Pruning(sweep.pruner, epochs=epochs, objectives=sweep.objectives), source=source)
    view = SweepView(trials, slots=len(slots.shares), objectives=sweep.objectives)
    for trial in trials:
        _recall(trial, agenda, requested=requested, status="RUNNING", before=taken_over.get(trial.number))
    for trial in others:
        status = run_status(trial.run.folder)
        _recall(trial, agenda, requested=requested, status=status)
        view.recall(trial, status, values_of(trial.run, sweep.objectives))
    with owned(RunDir(folder)), signals.stopping() as stop:
        mirror = SweepMirror(folder, example.tracking, requested)
        mirror.open()
        with view:
            schedule = Schedule(
                folder,
                slots,
                objectives=sweep.objectives,
                ends=ends,
                stop=stop,
                view=view,
                overrides=overrides,
                taken_over=taken_over,
            )
            outcomes = schedule.go(agenda)
        if ends.reason:
            console.complain([f"the sweep is ended: {ends.reason}"])
        close(folder, mirror=mirror, pruned=() if stop or ends.reason else agenda.paused)
    if stop.reason:
        return stop.reason.exit_code
    if ends.reason:
        return ends.exit_code
    return max([0, *(outcome.exit_code for outcome in outcomes.values() if outcome.status != "PAUSED")])


def _recall(
    trial: Trial, agenda: Agenda, *, requested: SweepRequest, status: Status, before: int | None = None
) -> None:
    """Tell the agenda how far a trial has come; of one whose job goes to an epoch, the rungs `before` that."""
    rungs = agenda.rungs if trial.run.folder.journal.exists() else ()
    rungs = [epoch for epoch in rungs if before is None or epoch < before]
    compared = measures(requested.sweep.objectives)
    reached = [(epoch, values_of(trial.run, compared, epoch=epoch)) for epoch in rungs]
    agenda.recall(trial, [(epoch, values) for epoch, values in reached if values], status=status)
