"""A sweep: several runs asked for at once, frozen together before the first one starts."""

from __future__ import annotations

import re
import shutil
import socket
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from mvit import console
from mvit.config import MlflowTracking, NoTracking, SweepConfig
from mvit.console import mvit_command, shown
from mvit.errors import ConfigError, Problem
from mvit.parent import orphans, provenance, signals
from mvit.parent.freeze import Planned, Surveys, freeze, plan_launch, runs_of
from mvit.parent.host import CHECKOUT, Host, this_host
from mvit.parent.launch import show_plan
from mvit.parent.report.row import result_row
from mvit.parent.report.table import TrialResult, labels_of, sweep_lines
from mvit.parent.request.compose import Composer
from mvit.parent.slot import must_fit, slot_from_environment
from mvit.parent.sweep.ends import Ends
from mvit.parent.sweep.schedule import Schedule, Waiting, workers_here
from mvit.parent.sweep.slots import Slots, slots_again, slots_of
from mvit.parent.sweep.view import SweepView
from mvit.parent.tracking.content import mlflow_status
from mvit.parent.tracking.store import complaint_of, store_uri
from mvit.parent.tracking.sweep_run import close_sweep, open_sweep
from mvit.rundir.ending import EndStatus, record_end, record_mirrored
from mvit.rundir.frozen import Run, read_run
from mvit.rundir.ledger import Asked, Ledger, TrialFrozen, asked_for
from mvit.rundir.ownership import owned
from mvit.rundir.paths import RunDir, new_run_id, writable
from mvit.rundir.result import best_accuracy, read_result
from mvit.rundir.state import Status, run_status, status_of_trials
from mvit.rundir.sweep import read_trials, trials_of

LONGEST_NAME = 60
"""Characters of a trial's label in the name of its folder."""


def plan_trials(trials: Sequence[Sequence[str]], *, composer: Composer, hosts: Sequence[Host]) -> list[Planned]:
    """Compose, check and plan every trial, given by its overrides and the machine as it sees it, before one is frozen.

    Raises `ConfigError` with the problems of all of them: one that every trial has once, another with its trial.
    """
    surveys = Surveys()
    planned: list[Planned] = []
    problems: dict[str, tuple[Problem, list[int]]] = {}
    for number, (overrides, host) in enumerate(zip(trials, hosts, strict=True)):
        try:
            planned.append(plan_launch(composer.compose(overrides), host=host, surveys=surveys))
        except ConfigError as error:
            for problem in error.problems:
                problems.setdefault(str(problem), (problem, []))[1].append(number)
    if problems:
        raise ConfigError(*(p for problem, numbers in problems.values() for p in _placed(problem, numbers, trials)))
    return planned


def _placed(problem: Problem, numbers: Sequence[int], trials: Sequence[Sequence[str]]) -> Iterator[Problem]:
    if len(numbers) == len(trials):
        yield problem
        return
    for number in numbers:
        trial = f"trial {number + 1} of {len(trials)} ({' '.join(trials[number])})"
        yield replace(problem, path=f"{trial}: {problem.path}")


def freeze_sweep(
    planned: Sequence[Planned],
    overrides: Sequence[Sequence[str]],
    *,
    sweep: SweepConfig,
    slots: Slots,
    argv: Sequence[str],
) -> tuple[Path, list[Run]]:
    """Freeze every trial below one folder; raises `RunDirError` where that fails, and leaves nothing then."""
    folder = runs_of(planned[0].config) / new_run_id()
    width = len(str(len(planned) - 1))
    names = [
        f"{number:0{width}d}-{as_name(label)}-{new_run_id().rpartition('-')[2]}"
        for number, label in enumerate(labels_of(overrides))
    ]
    made_of = provenance.collect(CHECKOUT, argv=list(argv), dataset_fingerprint="")
    with writable(folder):
        folder.mkdir(parents=True, exist_ok=False)
    try:
        runs = [freeze(trial, folder / name, made_of=made_of) for trial, name in zip(planned, names, strict=True)]
        with writable(folder):
            frozen = (
                TrialFrozen(trial=number, folder=name, overrides=tuple(typed))
                for number, (name, typed) in enumerate(zip(names, overrides, strict=True))
            )
            Ledger(folder).append(Asked(argv=tuple(argv), sweep=sweep, slots=slots.texts()), *frozen)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return folder, runs


def launch_sweep(trials: Sequence[Sequence[str]], *, composer: Composer, argv: Sequence[str]) -> int:
    """Plan all trials, freeze them, run them; returns the exit code, raises `ConfigError` for wrong ones."""
    if not trials:
        raise ConfigError(Problem("-m", None, "gives no trials: an axis has no values", "give each axis a value"))
    host, base = this_host(), slot_from_environment()
    sweep, *others = [composer.sweep(trial) for trial in trials]
    if any(other != sweep for other in others):
        raise ConfigError(Problem("sweep", None, "differs between the trials", "give each of its keys one value"))
    trials = [[override for override in trial if not _is_setting(override)] for trial in trials]
    planned = plan_trials(trials, composer=composer, hosts=[host] * len(trials))
    for key in ("dry_run", "freeze"):
        if len({getattr(trial.config, key) for trial in planned}) > 1:
            raise ConfigError(Problem(key, None, "differs between the trials", "give it one value"))
    slots = slots_of(sweep, [trial.config for trial in planned], host)
    if slots.are_shares:  # a trial has fewer cores than there are here, on which its plan depends
        hosts = [slots.host(host, workers=workers_here(trial.plan)) for trial in planned]
        planned = plan_trials(trials, composer=composer, hosts=hosts)
    for trial in planned:
        must_fit(slots.example(base, workers=workers_here(trial.plan)), trial.plan)
    config = planned[0].config
    if config.dry_run:
        for number, trial in enumerate(planned, 1):
            console.say(f"mvit: trial {number} of {len(planned)}: {' '.join(trials[number - 1])}")
            show_plan(trial, host=host, slot=base)
        return 0
    orphans.close(CHECKOUT / config.runs_dir)
    folder, runs = freeze_sweep(planned, trials, sweep=sweep, slots=slots, argv=argv)
    console.say(f"mvit: {len(runs)} trials in {shown(folder)}")
    if config.freeze:
        console.say(f"mvit: frozen; execute them with: {mvit_command('resume', folder)}")
        print(shown(folder))
        return 0
    return run_sweep(folder, runs)


def as_name(label: str) -> str:
    """The label of a trial as part of the name of its folder."""
    return re.sub(r"[^A-Za-z0-9._=,+-]+", "_", label.replace(" ", ","))[:LONGEST_NAME].rstrip("-_")


def _is_setting(override: str) -> bool:
    return re.match(r"\W*sweep\b", override) is not None


def run_sweep(folder: Path, runs: Sequence[Run]) -> int:
    """Run these trials of the sweep in its slots, and close it; returns the exit code.

    One that cannot be run here and now does not keep the others.
    """
    asked = asked_for(folder)
    ends = Ends.of(asked)
    trials = read_trials(folder)
    labels = dict(zip((trial.folder for trial in trials), labels_of([one.overrides for one in trials]), strict=True))
    numbers = {trial.folder: trial.trial for trial in trials}
    waiting = [Waiting(numbers[run.folder.path.name], run) for run in runs]
    view = SweepView({trial.number: labels[trial.run.folder.path.name] for trial in waiting})
    with owned(RunDir(folder)), signals.stopping() as stop:
        tracking = runs[0].config.tracking if runs else NoTracking(kind="none")
        store = tracking if isinstance(tracking, MlflowTracking) and _open(folder, tracking) else None
        with view:
            outcomes = Schedule(folder, slots_again(asked), ends=ends, stop=stop, view=view).go(waiting)
        if ends.reason:
            console.complain([f"the sweep is ended: {ends.reason}"])
        _close(folder, store)
    if stop.reason:
        return stop.reason.exit_code
    if ends.reason:
        return ends.exit_code
    return max([0, *(outcome.exit_code for outcome in outcomes.values())])


def _open(folder: Path, tracking: MlflowTracking) -> str | None:
    """The MLflow run that the trials are below; None where the store does not answer."""
    name = f"{folder.parent.name}-{folder.name}"
    tags = {"mvit.kind": "sweep", "folder": str(folder), "host": socket.gethostname()}
    uri = store_uri(tracking, CHECKOUT)
    ids: list[str] = []
    problem = complaint_of(lambda: ids.append(open_sweep(folder, tracking=tracking, uri=uri, name=name, tags=tags)))
    if problem:
        console.complain([problem])
    return ids[0] if ids else None


def _close(folder: Path, tracking: MlflowTracking | None) -> None:
    """Record the sweep's end, print the results of its trials and what is left of it."""
    trials = trials_of(folder)
    statuses: list[Status] = [run_status(trial) for trial in trials]
    status: Status = status_of_trials(statuses)
    end: EndStatus = "KILLED" if status in ("FROZEN", "RUNNING") else status
    results = _results(folder)
    if len(results) > 1:
        for line in sweep_lines(results):
            console.say(line)
    record_end(RunDir(folder), end, exit_code=None)
    if tracking:
        uri, best = store_uri(tracking, CHECKOUT), best_accuracy(trials)
        summary = {} if best is None else {"best/val_acc1": best}
        problem = complaint_of(lambda: close_sweep(folder, uri=uri, status=mlflow_status(end), summary=summary))
        if problem:
            console.complain([problem])
        record_mirrored(RunDir(folder), mirrored=problem is None)
    counts = ", ".join(f"{statuses.count(s)} {_word(s)}" for s in sorted(set(statuses)))
    console.say(f"mvit: sweep {end}, {shown(folder)}: {counts}")
    if end != "FINISHED":
        console.say(f"mvit: continue with: {mvit_command('resume', folder)}")


def _results(folder: Path) -> list[TrialResult]:
    """The results of the trials that are FINISHED, in their order."""
    results: list[TrialResult] = []
    for trial in read_trials(folder):
        run_dir = RunDir(folder / trial.folder)
        if run_status(run_dir) == "FINISHED" and (result := read_result(run_dir)) is not None:
            row = result_row(read_run(run_dir), result)
            results.append(TrialResult(trial.folder, list(trial.overrides), row))
    return results


def _word(status: Status) -> str:
    return "not started" if status == "FROZEN" else status
