"""Resuming a sweep: what of it is not finished, and more of it."""

from __future__ import annotations

import sys
import time
from collections.abc import Collection, Container, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from mvit import console
from mvit.config import RunConfig, SlurmLaunch
from mvit.console import mvit_command, shown
from mvit.errors import ConfigError, Problem, RunDirError
from mvit.files import lock
from mvit.parent import orphans
from mvit.parent.freeze import Surveys
from mvit.parent.host import this_host
from mvit.parent.reopen import MAY_CHANGE, changed, reopen
from mvit.parent.report.table import labels_of
from mvit.parent.request.axes import Space, bare, read_space
from mvit.parent.request.check import parse
from mvit.parent.request.compose import Composer, override_sweep
from mvit.parent.slot import Slot, must_fit
from mvit.parent.slurm.lost import record_lost
from mvit.parent.sweep.array import close_array, collect, may_leave, queued, send_array, tell_queued
from mvit.parent.sweep.launch import Request, is_setting, trials_of_request
from mvit.parent.sweep.problems import space_problems, trial_problems
from mvit.parent.sweep.schedule import mirror_ended
from mvit.parent.sweep.search import State
from mvit.parent.sweep.slots import slots_again, workers_here
from mvit.parent.sweep.source import Source, corners
from mvit.parent.sweep.sweep import run_sweep
from mvit.parent.sweep.trials import Freezer, Trial, identity, plan_trials, without_repeats
from mvit.rundir.ending import read_ending
from mvit.rundir.frozen import read_run
from mvit.rundir.launcher import launcher_lives
from mvit.rundir.ledger import (
    Event,
    Ledger,
    SearchExhausted,
    SweepRequest,
    TrialFrozen,
    TrialPaused,
    TrialPruned,
    TrialStarted,
    read_events,
    recorded_request,
)
from mvit.rundir.objectives import values_of
from mvit.rundir.paths import RunDir, writable
from mvit.rundir.state import run_status
from mvit.rundir.sweep import read_trials, trials_of
from mvit.sweep_config import SearchSweep

STAYS = (
    "sweep", "sweep.kind", "sweep.slots", "sweep.preview", "sweep.trials",
    "sweep/pruner", "sweep.pruner", "sweep.pruner.kind",
)  # fmt: skip
"""Settings that a sweep keeps."""
LEAVE_S = 60.0
"""Longest wait for the trials of a sweep whose parent was killed."""


@dataclass
class _Found:
    """The trials of a sweep, sorted."""

    unfinished: list[Trial] = field(default_factory=list[Trial])
    taken_over: list[Trial] = field(default_factory=list[Trial])
    """Those whose jobs go on already."""
    others: list[Trial] = field(default_factory=list[Trial])
    would_fail_again: int = 0
    code: int = 0


def resume_sweep(path: Path, overrides: Sequence[str], *, base: Slot, failed: bool) -> int:
    """Run what is not finished, or has `failed` alone, and what the overrides add to the axes; returns the exit code.

    Raises `RunDirError` for a sweep that runs or is resumed elsewhere, `ConfigError` for overrides that do not fit.
    """
    with lock(RunDir(path).ledger, wait=False) as is_mine:  # from before its trials are looked at
        if not is_mine:
            raise RunDirError(f"{path} is being resumed by another process")
        return _resume(path, overrides, base=base, failed=failed)


def _resume(path: Path, overrides: Sequence[str], *, base: Slot, failed: bool) -> int:
    recorded = recorded_request(path)
    requested = recorded or _defaults()
    waiting = queued(path)
    if waiting and may_leave(requested.sweep):
        if overrides or failed:
            raise RunDirError(f"{path} cannot be changed while it is with Slurm; stop it first, or wait for its end")
        tell_queued(path, waiting)
        return 0
    record_lost(RunDir(path))
    _wait_for(path, queued=waiting)
    for trial in trials_of(path):
        record_lost(trial)
    if may_leave(requested.sweep):
        collect(path)
    frozen = read_trials(path)
    limits = [text for text in overrides if bare(text).startswith(MAY_CHANGE)]
    more = [text for text in overrides if text not in limits]
    if more and recorded is None:
        raise RunDirError(f"{RunDir(path).ledger} no longer says what was asked for: its trials can only be finished")
    composer, request = Composer(tuple(map(Path, requested.config_dirs))), None
    if more or isinstance(requested.sweep, SearchSweep):
        request = _request(requested, more, composer)
        _base_must_be_the_same(path, frozen, composer)
        update = {"sweep": request.sweep, "overrides": request.overrides, "argv": tuple(sys.argv), "time": time.time()}
        requested = requested.model_copy(update=update)
    slots, surveys = slots_again(requested), Surveys()
    found = _sorted(
        path, frozen, requested=requested, limits=limits, base=base, failed=failed, surveys=surveys, queued=waiting
    )
    count = requested.sweep.max_trials if isinstance(requested.sweep, SearchSweep) else len(frozen)
    width = len(str(max(1, count - 1)))
    freezer = Freezer(path, slots, host=this_host(), base=base, argv=sys.argv, width=width, surveys=surveys)
    if more and request and not isinstance(requested.sweep, SearchSweep):
        found.unfinished += _more(request, frozen, requested=requested, composer=composer, freezer=freezer)
    elif more and request:
        _must_be_comparable(found, request, composer=composer, surveys=surveys)
        with writable(path):
            Ledger(path).append(requested)
    if found.would_fail_again:
        command = mvit_command("resume", path, "--failed")
        console.complain(
            [f"{found.would_fail_again} failed with an error that would come back; run them again with: {command}"]
        )
        found.code = found.code or 1
    source = None
    if request and isinstance(requested.sweep, SearchSweep) and not failed:
        source = Source(request.space, requested.sweep, composer=composer, freezer=freezer)
        _recall(source, path, frozen, found, requested=requested)
    example = _example(path, [*found.unfinished, *found.others], request, composer)
    others = [trial for trial in found.others if not (failed and _is_paused(trial))]
    if isinstance(example.launch, SlurmLaunch) and not may_leave(requested.sweep):
        for trial in found.others:
            mirror_ended(trial.run)
    has_more = found.unfinished or source or any(map(_is_paused, others))
    if not has_more and RunDir(path).end.exists() and (found.code or more):
        return found.code
    if has_more:
        RunDir(path).end.unlink(missing_ok=True)  # a sweep that is FINISHED may have more trials now
    if isinstance(example.launch, SlurmLaunch) and may_leave(requested.sweep):
        if not found.unfinished:
            return max(found.code, close_array(path, requested=requested, example=example))
        send_array(path, found.unfinished, requested=requested, example=example, overrides=limits)
        return found.code
    return max(
        found.code,
        run_sweep(
            path,
            found.unfinished,
            requested=requested,
            slots=slots,
            example=example,
            others=others,
            source=source,
            overrides=limits,
            taken_over=_turns(path, waiting),
        ),
    )


def _wait_for(path: Path, *, queued: Container[int]) -> None:
    """Until nothing of the sweep runs: the trials of one that was killed stop after a checkpoint."""
    if launcher_lives(RunDir(path)) and not RunDir(path).end.exists():
        raise RunDirError(f"{path} is still running; stop it first")
    deadline = time.monotonic() + LEAVE_S
    left = [RunDir(path / trial.folder) for trial in read_trials(path) if trial.trial not in queued]
    while any(map(launcher_lives, left)):
        if time.monotonic() > deadline:
            raise RunDirError(f"{path} is still running; stop it first")
        time.sleep(0.2)


def _defaults() -> SweepRequest:
    """In place of what was asked for, where the ledger does not say it."""
    return SweepRequest(argv=(), overrides=(), sweep=Composer().sweep([]), slots=())


def _request(requested: SweepRequest, more: Sequence[str], composer: Composer) -> Request:
    """What was typed, and what is typed now beside it."""
    kept, settings = requested.sweep, [text for text in more if is_setting(text)]
    first = read_space(requested.overrides, composer)
    space = first.joined(_added([text for text in more if text not in settings], first, composer))
    if fixed := [text for text in settings if bare(text).partition("=")[0] in STAYS]:
        key, _, value = bare(fixed[0]).partition("=")
        raise ConfigError(Problem(key, value, "stays what the sweep was started with", "leave it out"))
    if settings:
        kept = override_sweep(kept, settings)
    if problems := list(space_problems(kept, space)):
        raise ConfigError(*problems)
    return Request(kept, space)


def _added(texts: Sequence[str], space: Space, composer: Composer) -> Space:
    """The values that are added to the axes; raises `ConfigError` for anything else."""
    keys = {bare(axis.key) for axis in space.axes}
    listed = [
        f"{key}=choice({value})" if equals and bare(key) in keys and "(" not in value else text
        for text in texts
        for key, equals, value in [text.partition("=")]
    ]
    added = read_space(listed, composer)
    problems = [
        Problem(bare(key), value, "is not an axis of the sweep", "give several values, or start another sweep")
        for key, _, value in (text.partition("=") for text in added.fixed)
    ]
    for key, axis in added.by_key.items():
        if (kept := space.by_key.get(key)) and kept.is_interval:
            rule = f"cannot be added to an interval, {kept.text(kept.low)} to {kept.text(kept.high)}"
            remedy = "draw more of it with sweep.max_trials=..., or start another sweep"
            problems.append(Problem(key, ",".join(axis.values) or None, rule, remedy))
        elif axis.is_interval:
            problems.append(Problem(key, None, "is an interval", "list the values that are to be added"))
    if problems:
        raise ConfigError(*problems)
    return added


def _base_must_be_the_same(path: Path, frozen: Sequence[TrialFrozen], composer: Composer) -> None:
    """Raise `ConfigError` with what differs, where a trial composed today is not what was frozen."""
    for trial in frozen:
        if not trial.config:  # its line is torn
            continue
        try:
            run = read_run(RunDir(path / trial.folder))
        except RunDirError:
            continue
        now = plan_trials([trial.overrides], composer=composer, host=this_host(), surveys=Surveys())[0].config
        if identity(now) != identity(run.config) and (problems := changed(run.config, now)):
            raise ConfigError(*problems)
        return


def _sorted(
    path: Path,
    frozen: Sequence[TrialFrozen],
    *,
    requested: SweepRequest,
    limits: Sequence[str],
    base: Slot,
    failed: bool,
    surveys: Surveys,
    queued: Container[int],
) -> _Found:
    """Which trials are to be run, and which are not; those that are `queued` are taken over."""
    found, slots = _Found(), slots_again(requested)
    labels = labels_of([trial.overrides for trial in frozen])
    last = {event.trial: event for event in read_events(path) if not isinstance(event, SweepRequest | SearchExhausted)}
    for trial, label in zip(frozen, labels, strict=True):
        folder = RunDir(path / trial.folder)
        orphans.close_one(folder)
        if trial.trial in queued:
            with suppress(RunDirError):
                found.taken_over.append(Trial(trial.trial, label, read_run(folder)))
            continue
        ending, status = read_ending(folder), run_status(folder)
        failure = ending.error if ending else None
        is_pruned = status == "PAUSED" and _is_at_a_rung(folder, last.get(trial.trial), requested)
        is_left_out = failed and not failure
        comes_back = bool(failure) and not failed and failure.kind not in requested.sweep.retries
        found.would_fail_again += comes_back
        try:
            if status == "FINISHED" or is_pruned or is_left_out or comes_back:
                found.others.append(Trial(trial.trial, label, read_run(folder)))
                continue
            run = reopen(folder, limits, surveys=surveys)
            must_fit(slots.example(base, workers=workers_here(run.plan)), run.plan, option="sweep.slots")
            found.unfinished.append(Trial(trial.trial, label, run))
        except (ConfigError, RunDirError) as error:  # one that cannot be opened does not keep the others
            console.complain(f"{trial.folder}: {line}" for line in str(error).splitlines())
            found.code = 2
    found.unfinished[:0] = found.taken_over  # they have their slots
    return found


def _turns(path: Path, queued: Collection[int]) -> dict[int, int | None]:
    """The epoch to which the job of each of these trials goes; None for its end."""
    started = (event for event in read_events(path) if isinstance(event, TrialStarted) and event.trial in queued)
    return {**dict.fromkeys(queued), **{event.trial: event.until_epoch for event in started}}


def _is_at_a_rung(folder: RunDir, last: Event | None, requested: SweepRequest) -> bool:
    """Whether a trial that is paused waits to be promoted, rather than to go on."""
    match last:
        case TrialPaused() | TrialPruned():
            return requested.sweep.pruner.kind != "none"
        case TrialStarted(until_epoch=int() as epoch):  # the parent was killed before it could tell of the pause
            with suppress(RunDirError):
                return bool(values_of(read_run(folder), requested.sweep.objectives, epoch=epoch))
        case _:
            pass
    return False


def _more(
    request: Request, frozen: Sequence[TrialFrozen], *, requested: SweepRequest, composer: Composer, freezer: Freezer
) -> list[Trial]:
    """Freeze the trials that the sweep does not have yet."""
    wanted = trials_of_request(request, composer)
    planned = plan_trials(wanted, composer=composer, host=freezer.host, surveys=freezer.surveys)
    if problems := list(trial_problems(requested.sweep, [trial.config for trial in planned])):
        raise ConfigError(*problems)
    known = [trial.config for trial in frozen]
    new = without_repeats([freezer.fitted(trial) for trial in planned], wanted, known=known)
    labels = labels_of([*(trial.overrides for trial in frozen), *(overrides for _, overrides in new)])[len(frozen) :]
    first = 1 + max((trial.trial for trial in frozen), default=-1)
    console.say(f"mvit: {len(new)} more trials in {shown(freezer.folder)}")
    return freezer.freeze_all(new, labels, first=first, after=[requested])


def _must_be_comparable(found: _Found, request: Request, *, composer: Composer, surveys: Surveys) -> None:
    """Raise `ConfigError` where the trials of a search, and those that it may draw, do not fit its changed settings."""
    planned = plan_trials(corners(request.space, composer), composer=composer, host=this_host(), surveys=surveys)
    made = [trial.run.config for trial in (*found.unfinished, *found.others)]
    if problems := list(trial_problems(request.sweep, [*made, *(trial.config for trial in planned)])):
        raise ConfigError(*problems)


def _recall(
    source: Source, path: Path, frozen: Sequence[TrialFrozen], found: _Found, *, requested: SweepRequest
) -> None:
    """Tell the source of a search what became of its trials."""
    by_number = {trial.trial: trial for trial in frozen}
    unfinished = {trial.number for trial in found.unfinished}
    epochs = {event.trial: event.epoch for event in read_events(path) if isinstance(event, TrialPaused)}
    for trial in [*found.unfinished, *found.others]:
        status = run_status(trial.run.folder)
        ends: dict[str, State] = {"FINISHED": "finished", "PAUSED": "paused"}
        state: State = "running" if trial.number in unfinished else ends.get(status, "failed")
        event = by_number[trial.number]
        values = values_of(trial.run, requested.sweep.objectives)
        source.add(trial, event.overrides, state, values, config=event.config, epoch=epochs.get(trial.number, 0))


def _is_paused(trial: Trial) -> bool:
    return run_status(trial.run.folder) == "PAUSED"


def _example(path: Path, trials: Sequence[Trial], request: Request | None, composer: Composer) -> RunConfig:
    """A run of the sweep; raises `RunDirError` where there is none."""
    if trials:
        return trials[0].run.config
    if request:
        return parse(composer.compose(corners(request.space, composer)[0]))
    raise RunDirError(f"{path} has no trial that can be read")
