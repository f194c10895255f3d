"""Reproduction: a finished run made again, and held against itself number by number."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mvit import console
from mvit.console import mvit_command, shown
from mvit.errors import RunDirError
from mvit.parent import provenance
from mvit.parent.foreground import follow
from mvit.parent.freeze import Surveys, freeze, plan_launch, runs_of
from mvit.parent.host import this_host
from mvit.parent.report import output
from mvit.parent.report.difference import Fact, differences, grid_of
from mvit.parent.report.record import Record, run_of
from mvit.parent.request.compose import override
from mvit.parent.slot import Slot, must_fit
from mvit.places import CHECKOUT
from mvit.rundir.checkpoints import tagged
from mvit.rundir.frozen import run_digest
from mvit.rundir.paths import new_run_id

CIRCUMSTANCES = ("code", "data", "plan")
"""Sections of what the result depends on, beside the configuration."""
TIMES = ("perf/", "benchmark/", "profile/")
"""What metrics begin with that no run repeats."""


def reproduce(path: Path, *, slot: Slot, argv: Sequence[str]) -> int:
    """Run it again, and compare; returns 0 where all that is promised to be equal is so, to the bit.

    Raises `RunDirError` for a run that has no result, and for a fork.
    """
    first = run_of(path)
    if first.run is None or first.row is None or first.status != "FINISHED":
        raise RunDirError(f"{shown(path)} is {first.status}: only what has finished can be reproduced")
    if first.forked_from:
        rule = "the checkpoint that a fork starts from is no part of what is repeated; reproduce its origin"
        raise RunDirError(f"{shown(path)} is a fork of {first.forked_from}: {rule}")
    config = first.run.config
    threads = [f"topology.threads={first.run.plan.threads}"] if config.topology.kind == "cpu" else []
    surveys = Surveys()
    surveys.know(first.run)
    planned = plan_launch(override(config, ["freeze=false", *threads]), host=this_host(), surveys=surveys)
    must_fit(slot, planned.plan)
    content, patch = provenance.collect(CHECKOUT, argv=list(argv), dataset_fingerprint="")
    content["reproduces"] = {"folder": str(path), "run_sha256": run_digest(first.folder)}
    run = freeze(planned, runs_of(planned.config) / new_run_id(), made_of=(content, patch))
    changed = [fact for fact in differences(first, run_of(run.folder.path)) if fact.section in CIRCUMSTANCES]
    if changed:
        console.say("mvit: what is not as it was:")
        for fact in changed:
            console.say(f"  {fact.name}: {fact.first} then, {fact.second} now")
    else:
        console.say("mvit: commit, changes, versions, data and plan are as they were: the result must be, to the bit")
    console.say(f"mvit: {run.config.name} in {shown(run.folder.path)}")
    outcome = follow(run, slot=slot)
    if outcome.status != "FINISHED":
        return outcome.exit_code
    second = run_of(run.folder.path)
    unequal = [fact for fact in differences(first, second) if _must_be_equal(fact)]
    if unequal:
        names = (first.id, second.id)
        output.show(grid_of(unequal, names=names), "terminal", title="", none="")
        console.complain([f"not reproduced: {unequal[0].name} is {unequal[0].second} instead of {unequal[0].first}"])
        console.say(f"mvit: all differences: {mvit_command('diff', first.folder.path, second.folder.path)}")
        return 1
    console.say(f"mvit: {_reproduced(first)}")
    return 0


def _reproduced(first: Record) -> str:
    numbers = sum(not key.startswith(TIMES) for key in first.metrics)
    if not numbers:
        return "repeated: all that it measured are times, which no run repeats"
    also = " and the last checkpoint" if tagged(first.folder.checkpoints, "last") else ""
    also += " and the predictions" if first.folder.answers.exists() else ""
    return f"reproduced: {numbers} numbers{also} are equal to the bit"


def _must_be_equal(fact: Fact) -> bool:
    return fact.section in ("result", "weights", "answers") and not fact.name.startswith(TIMES)
