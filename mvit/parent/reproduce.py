"""Reproduction: a finished run made again, and held against itself number by number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from mvit import console
from mvit.console import mvit_command, shown
from mvit.errors import RunDirError
from mvit.files import read_mapping
from mvit.parent import provenance
from mvit.parent.foreground import follow
from mvit.parent.freeze import Planned, freeze, plan_launch, runs_of
from mvit.parent.host import CHECKOUT, this_host
from mvit.parent.report import output
from mvit.parent.report.difference import Fact, differences, grid_of
from mvit.parent.report.record import Record, run_of
from mvit.parent.request.compose import override
from mvit.parent.slot import Slot, must_fit
from mvit.plan import LaunchPlan
from mvit.rundir.frozen import run_digest
from mvit.rundir.paths import RunDir, new_run_id

TIMES = ("perf/",)
"""What metrics begin with that no run repeats."""


def reproduce(path: Path, *, slot: Slot, argv: Sequence[str]) -> int:
    """Run it again, and compare; returns 0 where all that is promised to be equal is so, to the bit.

    Raises `RunDirError` for a run that has no result.
    """
    first = run_of(path)
    if first.run is None or first.row is None or first.status != "FINISHED":
        raise RunDirError(f"{shown(path)} is {first.status}: only what has finished can be reproduced")
    config = first.run.config
    threads = [f"topology.threads={first.run.plan.threads}"] if config.topology.kind == "cpu" else []
    planned = plan_launch(override(config, ["freeze=false", *threads]), host=this_host())
    must_fit(slot, planned.plan)
    made_of = provenance.collect(CHECKOUT, argv=list(argv), dataset_fingerprint="")
    circumstances = list(_circumstances(first, planned, made_of))
    if circumstances:
        console.say("mvit: what is not as it was:")
        for line in circumstances:
            console.say(f"  {line}")
    else:
        console.say("mvit: commit, changes, versions, data and plan are as they were: the result must be, to the bit")
    content, patch = made_of
    content["reproduces"] = {"folder": str(path), "run_sha256": run_digest(first.folder)}
    run = freeze(planned, runs_of(planned.config) / new_run_id(), made_of=(content, patch))
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
    numbers = sum(not key.startswith(TIMES) for key in first.metrics)
    console.say(f"mvit: reproduced: {numbers} numbers and the last checkpoint are equal to the bit")
    return 0


def _must_be_equal(fact: Fact) -> bool:
    return fact.section in ("result", "weights") and not fact.name.startswith(TIMES)


def _circumstances(first: Record, planned: Planned, made_of: tuple[Mapping[str, Any], str]) -> list[str]:
    """What of all that a result depends on has changed; the commit first."""
    assert first.run
    before, (now, patch) = read_mapping(first.folder.provenance) or {}, made_of
    versions = cast("dict[str, Any]", before.get("versions") or {})
    facts = [
        ("commit", before.get("commit"), now.get("commit")),
        ("uncommitted changes", _patch_of(first.folder), patch),
        *((name, version, now["versions"].get(name)) for name, version in versions.items()),
        ("CPU", before.get("cpu"), now.get("cpu")),
        ("data", first.run.plan.dataset.fingerprint, planned.plan.dataset.fingerprint),
        *_plan_facts(first.run.plan, planned.plan),
    ]
    return [_changed(name, then, today) for name, then, today in facts if then != today]


def _plan_facts(before: LaunchPlan, now: LaunchPlan) -> list[tuple[str, Any, Any]]:
    return [
        ("cards", before.world_size, now.world_size),
        ("threads of a process", before.threads, now.threads),
        ("kernels", before.kernels.isa or "plain", now.kernels.isa or "plain"),
    ]


def _patch_of(folder: RunDir) -> str:
    try:
        return folder.patch.read_bytes().decode("utf-8", "surrogateescape")
    except OSError:
        return ""


def _changed(name: str, then: Any, today: Any) -> str:
    if name == "uncommitted changes":
        return f"{name}: {len(str(then).splitlines())} lines then, {len(str(today).splitlines())} now"
    return f"{name}: {_short(then)} then, {_short(today)} now"


def _short(value: Any) -> str:
    text = str(value)
    return text[:12] if len(text) in (40, 64) and text.isalnum() else text
