"""Freezing: from a composed configuration to a run folder that anything may execute."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
from mvit.parent import provenance
from mvit.parent.host import CHECKOUT, Host
from mvit.parent.plan import make_plan
from mvit.parent.request.check import check
from mvit.parent.request.launch_rules import data_rules, host_rules
from mvit.parent.request.rules import judge
from mvit.parent.signals import Interrupted
from mvit.plan import DatasetFacts, LaunchPlan
from mvit.rundir.frozen import Run, write_run
from mvit.rundir.paths import create_run_dir, writable


@dataclass(frozen=True)
class Planned:
    """A request that may be frozen: legal, and possible here."""

    config: RunConfig
    plan: LaunchPlan


def plan_launch(raw: Mapping[str, Any], *, host: Host) -> Planned:
    """Check and plan a composed configuration; raises `ConfigError` with every problem."""
    config, facts = checked(raw, host)
    if not config.dry_run:
        facts = readable(config, facts)
    return Planned(config, make_plan(config, host=host, facts=facts))


def runs_of(config: RunConfig) -> Path:
    """Where the run folders of the configuration's name are."""
    return CHECKOUT / config.runs_dir / config.name


def freeze(planned: Planned, path: Path, *, argv: Sequence[str], about: Mapping[str, Any] | None = None) -> Run:
    """Make the run folder: what the workers shall do, and what made it; `about` adds to its provenance.

    Nothing has started. Raises `RunDirError` where the folder cannot be written; then nothing is left of it.
    """
    run = Run(create_run_dir(path), planned.config, planned.plan)
    fingerprint = planned.plan.dataset.fingerprint
    made_of, patch = provenance.collect(CHECKOUT, argv=list(argv), dataset_fingerprint=fingerprint)
    try:
        with writable(path):
            write_json(run.folder.provenance, {**made_of, **(about or {})})
            if patch:
                run.folder.patch.write_text(patch, encoding="utf-8", errors="surrogateescape")
            write_run(run)
    except (RunDirError, Interrupted):
        shutil.rmtree(path, ignore_errors=True)
        raise
    return run


def checked(raw: Mapping[str, Any], host: Host) -> tuple[RunConfig, DatasetFacts]:
    """The configuration and a look at its data; raises `ConfigError` with all that is wrong with either."""
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
