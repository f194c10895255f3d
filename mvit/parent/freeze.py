"""One run, from its raw configuration to its exit code."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mvit import console
from mvit.config import ImageFolderData, RunConfig
from mvit.data.dataset import look
from mvit.data.facts import DatasetError
from mvit.data.imagefolder import emptied, scan
from mvit.data.readable import unreadable_cached
from mvit.errors import ConfigError, Problem, RunDirError
from mvit.files import write_json
from mvit.parent import execute, orphans, provenance
from mvit.parent.command import Command, make_command
from mvit.parent.describe import describe
from mvit.parent.host import CHECKOUT, Host, this_host
from mvit.parent.plan import make_plan
from mvit.parent.report.estimate import past_runs
from mvit.parent.request.check import check
from mvit.parent.request.launch_rules import data_rules, host_rules
from mvit.parent.request.rules import judge
from mvit.parent.signals import Stopped
from mvit.parent.sweep.sweep import Sweep
from mvit.plan import DatasetFacts, LaunchPlan
from mvit.rundir import ownership, paths
from mvit.rundir.frozen import write_run
from mvit.rundir.paths import RunDir


def launch(raw: Mapping[str, Any], *, argv: Sequence[str], sweep: Sweep | None) -> int:
    """Check, plan, run, mirror, report; returns the exit code, raises `ConfigError` for a wrong request."""
    host = this_host()
    config, facts = checked(raw, host)
    runs = CHECKOUT / config.runs_dir
    path = (sweep.place(config) if sweep else runs / config.name) / paths.new_run_id()
    if config.dry_run:
        command = make_command(config, host=host, folder=RunDir(path), attempt=1)
        _show(config, make_plan(config, host=host, facts=facts), command, runs)
        return 0

    facts = readable(config, facts)
    orphans.close(runs)
    plan = make_plan(config, host=host, facts=facts)
    parent_run_id = sweep.parent_run(config) if sweep else None
    folder = begin(path, config, plan, argv=argv, about={})
    if sweep:
        sweep.begun(path.name)
    console.pairs(describe(config, plan, past=past_runs(config, plan, runs)))
    ended = execute.follow(config, plan, folder, host=host, parent_run_id=parent_run_id)
    if sweep:
        best = ended.result["metrics"].get("best/val_acc1") if ended.result else None
        sweep.add(path.name, ended.outcome, ended.row, best=best)
    return ended.outcome.exit_code


def begin(path: Path, config: RunConfig, plan: LaunchPlan, *, argv: Sequence[str], about: Mapping[str, Any]) -> RunDir:
    """A new run folder that this process owns: what the workers shall do, and what made it; `about` adds to that."""
    folder = paths.create_run_dir(path)
    made_of, patch = provenance.collect(CHECKOUT, argv=list(argv), dataset_fingerprint=plan.dataset.fingerprint)
    try:
        with paths.writable(path):
            ownership.claim(folder)
            write_run(folder, config, plan)
            write_json(folder.provenance, {**made_of, **about})
            if patch:
                folder.patch.write_text(patch, encoding="utf-8", errors="surrogateescape")
    except (RunDirError, Stopped):
        shutil.rmtree(path, ignore_errors=True)
        raise
    console.say(f"mvit: {config.name} in {execute.shown(path)}")
    return folder


def checked(raw: Mapping[str, Any], host: Host) -> tuple[RunConfig, DatasetFacts]:
    """The configuration and a look at its data; raises `ConfigError` with all that is wrong, here and there."""
    sections, problems = check(raw)
    if raw.get("dry_run") is not True:  # a plan can be made for cards that are elsewhere
        problems += judge(host_rules(host), sections)
    facts = None
    if "data" in sections:
        try:
            facts = look(sections["data"])
            problems += judge(data_rules(facts), sections)
        except DatasetError as error:
            problems.append(error.problem)
    if problems or facts is None:
        raise ConfigError(*problems)
    return RunConfig.model_validate(dict(raw)), facts


def readable(config: RunConfig, facts: DatasetFacts) -> DatasetFacts:
    """The facts without the unreadable images of a folder; raises `ConfigError` naming them where none may be."""
    data = config.data
    if not isinstance(data, ImageFolderData):
        return facts
    classes, train, val = scan(data)
    root = Path(data.root)
    trains = config.task.kind == "train"
    broken = unreadable_cached(
        root,
        (train, val) if trains else (val,),
        folder=CHECKOUT / config.runs_dir / ".readable",
        threads=data.workers,
        before=lambda count: console.say(f"mvit: reading {count} images once, to find unreadable ones"),
    )
    if broken and data.on_unreadable == "refuse":
        remedy = "remove or repair it, or set data.on_unreadable=skip"
        raise ConfigError(*(Problem("data.root", str(root / path), "is no readable image", remedy) for path in broken))
    if trains and (lost := emptied(train, broken, classes)):
        remedy = "repair its images, or remove the class"
        raise ConfigError(*(Problem("data.root", name, "is a class without a readable image", remedy) for name in lost))
    of_train = len(frozenset(broken) & frozenset(train.paths))
    left = {"num_train": facts.num_train - of_train, "num_val": facts.num_val - (len(broken) - of_train)}
    facts = facts.model_copy(update={**left, "skipped": tuple(broken)})
    if problems := list(judge(data_rules(facts), dict(config))):
        raise ConfigError(*problems)
    return facts


def _show(config: RunConfig, plan: LaunchPlan, command: Command, runs: Path) -> None:
    """The plan, for `dry_run`."""
    console.pairs(describe(config, plan, past=past_runs(config, plan, runs)))
    console.pairs([("command", " ".join(command.argv))])
    console.pairs(("" if index else "environment", f"{k}={v}") for index, (k, v) in enumerate(command.env.items()))
