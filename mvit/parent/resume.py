"""Resuming: a frozen folder opened again, as it was made, or as a fork that is changed."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from mvit import console
from mvit.config import RunConfig, TrainRun, validated
from mvit.console import mvit_command, shown
from mvit.errors import ConfigError, DataChanged, Problem, RunDirError
from mvit.parent import orphans, provenance
from mvit.parent.announce import announce, resumes_at
from mvit.parent.foreground import follow
from mvit.parent.freeze import Surveys, checked, freeze, plan_launch
from mvit.parent.host import CHECKOUT, this_host
from mvit.parent.launch import show_plan
from mvit.parent.request.compose import override
from mvit.parent.slot import Slot, must_fit
from mvit.parent.sweep.schedule import workers_here
from mvit.parent.sweep.slots import slots_again
from mvit.parent.sweep.sweep import run_sweep
from mvit.rundir import checkpoints
from mvit.rundir.ending import RETRYABLE, read_ending
from mvit.rundir.frozen import Run, read_run, run_digest
from mvit.rundir.launcher import launcher_lives
from mvit.rundir.ledger import asked_for
from mvit.rundir.ownership import must_be_over
from mvit.rundir.paths import RunDir, new_run_id
from mvit.rundir.state import run_status
from mvit.rundir.sweep import is_sweep, trials_of

LEAVE_S = 60.0
"""Longest wait for the trials of a sweep whose parent was killed."""
MAY_CHANGE = ("limits.", "train.max_restarts")
"""What only the launcher reads: another value gives the same run."""


def reopen(folder: RunDir, overrides: Sequence[str] = (), *, surveys: Surveys | None = None) -> Run:
    """A frozen run that may be executed, for the first time or again; the overrides are limits and the like.

    Raises `RunDirError` for a run that is finished, damaged or whose data changed, `ConfigError` for a change that
    would make another run of it.
    """
    run = read_run(folder)
    config = validated(override(run.config, overrides))
    changes = [change for change in changed(run.config, config) if not change.path.startswith(MAY_CHANGE)]
    if changes:
        raise ConfigError(*changes)
    if run_status(folder) == "FINISHED":
        command = mvit_command("resume", folder.path, "--fork", "train.epochs=...")
        raise RunDirError(f"{folder.path} is FINISHED; continue it as a new run, for example with: {command}")
    _, survey = checked(config.model_dump(mode="json"), this_host(), surveys or Surveys())
    if survey.facts.fingerprint != run.plan.dataset.fingerprint:
        raise RunDirError(f"{folder.path}: its data has changed since the run was made; start a new run")
    try:
        survey.check_index(folder.data_index, facts=run.plan.dataset)
    except DataChanged as error:
        raise RunDirError(str(error)) from error
    must_be_over(folder)
    resumes_at(folder)
    return replace(run, config=config)


def run_frozen(path: Path, overrides: Sequence[str], *, slot: Slot, mirrored: bool = True) -> int:
    """Execute a frozen run, or go on with it, in the foreground; returns the exit code."""
    if is_sweep(path):
        raise RunDirError(f"{shown(path)} is a sweep; use: {mvit_command('resume', path)}")
    run = reopen(RunDir(path), overrides)
    must_fit(slot, run.plan)
    announce(run)
    return follow(run, slot=slot, mirrored=mirrored).exit_code


def resume(path: Path, overrides: Sequence[str], *, slot: Slot, failed: bool = False) -> int:
    """Continue a run, or what of a sweep is not finished, or has `failed` alone; returns the exit code."""
    if is_sweep(path):
        return _resume_sweep(path, overrides, slot=slot, failed=failed)
    _must_not_be_above_runs(path)
    if failed:
        raise ConfigError(Problem("--failed", None, "is for a sweep, and this is a run", "leave it out"))
    return run_frozen(path, overrides, slot=slot)


def _resume_sweep(path: Path, overrides: Sequence[str], *, slot: Slot, failed: bool) -> int:
    deadline = time.monotonic() + LEAVE_S
    while any(map(launcher_lives, trials_of(path))):
        # Trials of a sweep that was killed stop after a checkpoint.
        if launcher_lives(RunDir(path)) or time.monotonic() > deadline:
            raise RunDirError(f"{path} is still running; stop it first")
        time.sleep(0.2)
    asked = asked_for(path)
    retries, slots = asked.sweep.retries if asked else RETRYABLE, slots_again(asked)
    runs: list[Run] = []
    surveys, code, left = Surveys(), 0, 0
    for trial in trials_of(path):
        orphans.close_one(trial)
        ending = read_ending(trial)
        failure = ending.error if ending else None
        if run_status(trial) == "FINISHED" or (failed and not failure):
            continue
        if failure and failure.kind not in retries and not failed:
            left += 1
            continue
        try:
            run = reopen(trial, overrides, surveys=surveys)
            must_fit(slots.example(slot, workers=workers_here(run.plan)), run.plan)
            runs.append(run)
        except (ConfigError, RunDirError) as error:  # one that cannot be opened does not keep the others
            console.complain(f"{trial.path.name}: {line}" for line in str(error).splitlines())
            code = 2
    if left:
        command = mvit_command("resume", path, "--failed")
        console.complain([f"{left} failed in a way that would come back; run them again with: {command}"])
        code = code or 1
    return max(code, run_sweep(path, runs)) if runs or not left else code


def _must_not_be_above_runs(path: Path) -> None:
    runs = [] if (path / "run.json").exists() else sorted(path.glob("*/run.json"))
    if runs:
        raise RunDirError(f"{path} holds runs but is not a sweep; name one of them, such as {runs[-1].parent.name}")


def fork(path: Path, overrides: Sequence[str], *, slot: Slot, argv: Sequence[str]) -> int:
    """A new run beside its origin, of a changed configuration, that starts from a copy of the newest checkpoint."""
    if is_sweep(path):
        raise RunDirError(f"{path} is a sweep; fork one of its trials")
    origin = read_run(RunDir(path))
    must_be_over(origin.folder)
    newest = checkpoints.newest_whole(origin.folder)
    if newest is None:
        raise RunDirError(f"{path} has no checkpoint to start from; launch a new run instead")
    planned = plan_launch(override(origin.config, overrides), host=this_host())
    config, last_step = planned.config, planned.plan.last_step
    assert isinstance(config, TrainRun)  # another task keeps no checkpoints
    if newest.step > last_step or (newest.step == last_step and newest.is_evaluated()):
        rule = f"ends after step {last_step}, and the checkpoint is of step {newest.step}"
        raise ConfigError(Problem("train.epochs", config.train.epochs, rule, "raise it, or train.max_steps"))
    must_fit(slot, planned.plan)
    if config.dry_run:
        show_plan(planned, host=this_host(), slot=slot)
        return 0
    content, patch = provenance.collect(CHECKOUT, argv=list(argv), dataset_fingerprint="")
    content["forked_from"] = {"folder": str(path), "step": newest.step, "run_sha256": run_digest(origin.folder)}
    beside = path.parent.parent if is_sweep(path.parent) else path.parent
    run = freeze(
        planned,
        beside / new_run_id(),
        made_of=(content, patch),
        before=lambda folder: checkpoints.inherit(origin.folder, folder, newest),
    )
    console.say(f"mvit: {run.config.name} in {shown(run.folder.path)}")
    for change in changed(origin.config, run.config):
        console.say(f"  {change.path}: {change.value}")
    console.say(f"  continues {shown(path)} after step {newest.step}")
    if config.freeze:
        console.say(f"mvit: frozen; execute it with: {mvit_command('run', run.folder.path)}")
        print(shown(run.folder.path))
        return 0
    return follow(run, slot=slot).exit_code


def changed(before: RunConfig, after: RunConfig) -> list[Problem]:
    """The values that differ, as problems of a run that must not change."""
    return list(_differences(before.model_dump(mode="json"), after.model_dump(mode="json"), ""))


def _differences(before: dict[str, Any], after: dict[str, Any], prefix: str) -> list[Problem]:
    problems: list[Problem] = []
    for key, value in after.items():
        old, path = before.get(key), f"{prefix}{key}"
        if isinstance(value, dict) and isinstance(old, dict):
            problems += _differences(cast(dict[str, Any], old), cast(dict[str, Any], value), f"{path}.")
        elif value != old:
            rule = f"differs from what the run was made with, {old}"
            problems.append(Problem(path, value, rule, "leave it out, or continue as a new run with --fork"))
    return problems
