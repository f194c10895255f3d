"""A sweep: several runs asked for at once, frozen together before the first one starts."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mvit import console
from mvit.config import MlflowTracking, NoTracking
from mvit.console import mvit_command, shown
from mvit.errors import ConfigError, Problem, RunDirError
from mvit.parent import orphans, provenance
from mvit.parent.announce import announce
from mvit.parent.foreground import follow
from mvit.parent.freeze import Planned, Surveys, freeze, plan_launch, runs_of
from mvit.parent.host import CHECKOUT, Host, this_host
from mvit.parent.launch import show_plan
from mvit.parent.report.row import result_row
from mvit.parent.report.table import TrialResult, sweep_lines
from mvit.parent.signals import Interrupted
from mvit.parent.slot import Slot, must_fit, slot_from_environment
from mvit.parent.tracking.content import mlflow_status
from mvit.parent.tracking.store import complaint_of, store_uri
from mvit.parent.tracking.sweep_run import close_sweep, open_sweep
from mvit.rundir.ending import EndStatus, Outcome, record_end, record_mirrored
from mvit.rundir.frozen import Run, read_run
from mvit.rundir.ownership import owned
from mvit.rundir.paths import RunDir, new_run_id, writable
from mvit.rundir.result import best_accuracy, read_result
from mvit.rundir.state import Status, run_status, status_of_trials
from mvit.rundir.sweep import Trial, read_trials, trials_of, write_trials

Compose = Callable[[Sequence[str]], Mapping[str, Any]]
"""Composes the configuration of a trial from its overrides; raises `ConfigError`."""


def plan_trials(trials: Sequence[Sequence[str]], *, compose: Compose, host: Host) -> list[Planned]:
    """Compose, check and plan every trial, given by its overrides, before any of them is frozen.

    Raises `ConfigError` with the problems of all of them: one that every trial has once, another with its trial.
    """
    surveys = Surveys()
    planned: list[Planned] = []
    problems: dict[str, tuple[Problem, list[int]]] = {}
    for number, overrides in enumerate(trials):
        try:
            planned.append(plan_launch(compose(overrides), host=host, surveys=surveys))
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
    planned: Sequence[Planned], overrides: Sequence[Sequence[str]], *, argv: Sequence[str]
) -> tuple[Path, list[Run]]:
    """Freeze every trial below one folder; raises `RunDirError` where that fails, and leaves nothing then."""
    folder = runs_of(planned[0].config) / new_run_id()
    width = len(str(len(planned) - 1))
    names = [f"{number:0{width}d}-{new_run_id()}" for number in range(len(planned))]
    made_of = provenance.collect(CHECKOUT, argv=list(argv), dataset_fingerprint="")
    with writable(folder):
        folder.mkdir(parents=True, exist_ok=False)
    try:
        runs = [freeze(trial, folder / name, made_of=made_of) for trial, name in zip(planned, names, strict=True)]
        with writable(folder):
            trials = (Trial(overrides=tuple(o), folder=name) for o, name in zip(overrides, names, strict=True))
            write_trials(folder, tuple(trials))
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return folder, runs


def launch_sweep(trials: Sequence[Sequence[str]], *, compose: Compose, argv: Sequence[str]) -> int:
    """Plan all trials, freeze them, run them in order; returns the exit code, raises `ConfigError` for wrong ones."""
    if not trials:
        raise ConfigError(Problem("-m", None, "gives no trials: an axis has no values", "give each axis a value"))
    host, slot = this_host(), slot_from_environment()
    planned = plan_trials(trials, compose=compose, host=host)
    for key in ("dry_run", "freeze"):
        if len({getattr(trial.config, key) for trial in planned}) > 1:
            raise ConfigError(Problem(key, None, "differs between the trials", "give it one value"))
    for trial in planned:
        must_fit(slot, trial.plan)
    config = planned[0].config
    if config.dry_run:
        for number, trial in enumerate(planned, 1):
            console.say(f"mvit: trial {number} of {len(planned)}: {' '.join(trials[number - 1])}")
            show_plan(trial, host=host, slot=slot)
        return 0
    orphans.close(CHECKOUT / config.runs_dir)
    folder, runs = freeze_sweep(planned, trials, argv=argv)
    console.say(f"mvit: {len(runs)} trials in {shown(folder)}")
    if config.freeze:
        console.say(f"mvit: frozen; execute them with: {mvit_command('resume', folder)}")
        print(shown(folder))
        return 0
    return run_sweep(folder, runs, slot=slot)


def run_sweep(folder: Path, runs: Sequence[Run], *, slot: Slot) -> int:
    """Run these trials of the sweep, one after the other, and close it; returns the exit code.

    A trial that is busy elsewhere does not keep the others; one that is stopped ends the sweep.
    """
    with owned(RunDir(folder)):
        tracking = runs[0].config.tracking if runs else NoTracking(kind="none")
        store, codes = None, [0]
        try:
            if isinstance(tracking, MlflowTracking) and _open(folder, tracking):
                store = tracking
            for run in runs:
                outcome = _run_trial(run, slot=slot)
                codes.append(outcome.exit_code if outcome else 2)
                if outcome and (outcome.status in ("KILLED", "PAUSED") or outcome.exit_code >= 128):
                    break
        except Interrupted as interrupted:  # between two trials
            codes.append(interrupted.exit_code)
        _close(folder, store)
    return max(codes)


def _run_trial(run: Run, *, slot: Slot) -> Outcome | None:
    """None for a trial that cannot be run here and now."""
    try:
        announce(run)
        return follow(run, slot=slot)
    except (ConfigError, RunDirError) as error:
        console.complain(str(error).splitlines())
        return None


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
