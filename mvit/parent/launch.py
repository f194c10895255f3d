"""One launch: plan it, freeze it, follow it in the foreground."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mvit import console
from mvit.config import SlurmLaunch
from mvit.console import mvit_command, shown
from mvit.errors import ConfigError
from mvit.parent import orphans, provenance
from mvit.parent.announce import announce
from mvit.parent.command import Command, make_command
from mvit.parent.describe import describe
from mvit.parent.foreground import follow
from mvit.parent.freeze import Planned, freeze, plan_launch, runs_of
from mvit.parent.host import LOOPBACK, Host, free_port, this_host
from mvit.parent.nodes.address import master_address
from mvit.parent.report.estimate import past_runs
from mvit.parent.slot import Slot, must_fit, slot_from_environment
from mvit.parent.slurm.exclusion import excluded, tell_excluded
from mvit.parent.slurm.queue import submit
from mvit.parent.slurm.script import job_script
from mvit.places import CHECKOUT, PROJECT
from mvit.rundir.frozen import Run
from mvit.rundir.nodes import LEADER
from mvit.rundir.paths import RunDir, new_run_id

RUN_DIR = Path("RUN_DIR")
"""Stands for the folder in the command of a dry run, which makes none."""
MASTER = "MASTER_ADDR"
"""Stands for the address of node 0 where this machine has none that others reach."""


def tell_nothing_started(override: str) -> None:
    """Tell how a preview becomes a launch."""
    console.say(f"mvit: nothing was started; leave out {override} to start it")


def launch(raw: Mapping[str, Any], *, argv: Sequence[str]) -> int:
    """One run from its composed configuration; returns the exit code, raises `ConfigError` for a wrong request."""
    host, slot = this_host(), slot_from_environment()
    planned = plan_launch(raw, host=host)
    must_fit(slot, planned.plan)
    if planned.config.dry_run:
        show_plan(planned, host=host, slot=slot)
        show_job(planned, host=host)
        tell_nothing_started("dry_run=true")
        return 0
    orphans.close(PROJECT / planned.config.runs_dir)
    made_of = provenance.collect(CHECKOUT, argv=list(argv), dataset_fingerprint="")
    run = freeze(planned, runs_of(planned.config) / new_run_id(), made_of=made_of)
    announce(run)
    if planned.config.freeze:
        console.say(f"mvit: frozen; execute it with: {mvit_command('run', run.folder.path)}")
        print(shown(run.folder.path))
        return 0
    if isinstance(planned.config.launch, SlurmLaunch):
        return send(run, planned.config.launch)
    return follow(run, slot=slot).exit_code


def send(run: Run, launch: SlurmLaunch, *, overrides: Sequence[str] = ()) -> int:
    """Submit the run, with these limits, and leave it to Slurm."""
    without = excluded([run.folder], launch)
    job = submit(run.folder, job_script(run, launch, host=this_host(), arguments=overrides, without=without))
    tell_excluded(without)
    console.say(f"mvit: job {job.id} of Slurm: {shown(run.folder.job_script)}")
    console.say(f"mvit: check its status with: {mvit_command('ls', run.folder.path)}")
    return 0


def show_plan(planned: Planned, *, host: Host, slot: Slot) -> None:
    """The plan and the command, for `dry_run`."""
    config, plan = planned.config, planned.plan
    console.pairs(describe(config, plan, past=past_runs(config, plan, PROJECT / config.runs_dir)))
    run = Run(RunDir(RUN_DIR), config, plan)
    port, master = slot.port or free_port(), LOOPBACK
    if plan.nodes > 1:
        try:
            master = master_address()
        except ConfigError:  # of a machine that is not the one
            master = MASTER

    def command_of(rank: int) -> Command:
        here = replace(slot, node_rank=rank, master_addr=master)
        return make_command(run, host=host, slot=here, port=port, attempt=1)

    command, *environment = command_of(LEADER).shown()
    console.pairs([command])
    console.pairs((f"on node {rank}", shlex.join(command_of(rank).argv)) for rank in range(1, plan.nodes))
    console.pairs(environment)


def show_job(planned: Planned, *, host: Host) -> None:
    """The script of its job, for `dry_run`; nothing where it is executed here."""
    if isinstance(planned.config.launch, SlurmLaunch):
        run = Run(RunDir(RUN_DIR), planned.config, planned.plan)
        show_script(job_script(run, planned.config.launch, host=host))


def show_script(script: str) -> None:
    """Its lines beside one heading."""
    console.pairs(("" if index else "job", line) for index, line in enumerate(script.splitlines()))
