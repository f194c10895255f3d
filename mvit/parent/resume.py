"""Resuming: a frozen folder opened again, as it was made, or as a fork that is changed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mvit import console
from mvit.config import RunConfig, SlurmLaunch, TrainRun
from mvit.console import mvit_command, shown
from mvit.errors import ConfigError, Problem, RunDirError
from mvit.parent import provenance
from mvit.parent.announce import announce
from mvit.parent.foreground import accompany, follow
from mvit.parent.freeze import freeze, plan_launch
from mvit.parent.host import this_host
from mvit.parent.launch import send, show_job, show_plan, tell_nothing_started
from mvit.parent.reopen import changed, reopen
from mvit.parent.request.compose import override
from mvit.parent.slot import Slot, must_fit
from mvit.parent.slurm.lost import record_lost
from mvit.parent.slurm.queue import keep_job, must_not_be_queued
from mvit.parent.sweep.resume import resume_sweep
from mvit.places import CHECKOUT
from mvit.rundir import checkpoints
from mvit.rundir.fork import FORKED_FROM, Fork
from mvit.rundir.frozen import read_run, run_digest
from mvit.rundir.ownership import must_be_over
from mvit.rundir.paths import RunDir, new_run_id
from mvit.rundir.sweep import is_sweep


def run_frozen(
    path: Path, overrides: Sequence[str], *, slot: Slot, mirrored: bool = True, until_epoch: int | None = None
) -> int:
    """Execute a frozen run, or go on with it, in the foreground; returns the exit code."""
    if is_sweep(path):
        raise RunDirError(f"{shown(path)} is a sweep; use: {mvit_command('resume', path)}")
    must_not_be_queued(RunDir(path))
    record_lost(RunDir(path))
    run = reopen(RunDir(path), overrides)
    must_fit(slot, run.plan)
    keep_job(run.folder)
    if until_epoch is not None:
        _must_be_between(until_epoch, run.config)
    announce(run)
    return follow(run, slot=slot, mirrored=mirrored, until_epoch=until_epoch).exit_code


def take_part(path: Path, *, slot: Slot) -> int:
    """Execute this machine's part of a run on several, in the foreground; returns the exit code."""
    run = read_run(RunDir(path))
    if not 0 <= slot.node_rank < run.plan.nodes:  # else node 0 is to hear what does not fit
        must_fit(slot, run.plan)
    return accompany(run, slot=slot).exit_code


def _must_be_between(until_epoch: int, config: RunConfig) -> None:
    """Raise `ConfigError` for an epoch after which the run cannot be paused."""
    if not isinstance(config, TrainRun):
        raise ConfigError(Problem("--until-epoch", until_epoch, "is for training", "leave it out"))
    if not 0 < until_epoch < config.train.epochs:
        last = config.train.epochs - 1
        rule = f"must be from 1 to {last}" if last else "is for a run of several epochs"
        raise ConfigError(Problem("--until-epoch", until_epoch, rule, "lower it, or leave it out"))


def resume(path: Path, overrides: Sequence[str], *, slot: Slot, failed: bool = False) -> int:
    """Continue a run, or what of a sweep is not finished, or has `failed` alone; returns the exit code."""
    if is_sweep(path):
        return resume_sweep(path, overrides, base=slot, failed=failed)
    _must_not_be_above_runs(path)
    if failed:
        raise ConfigError(Problem("--failed", None, "is for a sweep, and this is a run", "leave it out"))
    launch = read_run(RunDir(path)).config.launch
    if isinstance(launch, SlurmLaunch):
        must_not_be_queued(RunDir(path))
        record_lost(RunDir(path))
        return send(reopen(RunDir(path), overrides), launch, overrides=overrides)
    return run_frozen(path, overrides, slot=slot)


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
        show_job(planned, host=this_host())
        tell_nothing_started("dry_run=true")
        return 0
    content, patch = provenance.collect(CHECKOUT, argv=list(argv), dataset_fingerprint="")
    made_from = Fork(folder=str(path), step=newest.step, run_sha256=run_digest(origin.folder))
    content[FORKED_FROM] = made_from.model_dump(mode="json")
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
    if isinstance(config.launch, SlurmLaunch):
        return send(run, config.launch)
    return follow(run, slot=slot).exit_code
