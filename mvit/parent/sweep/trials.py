"""The trials of a sweep: composed, checked, planned and frozen, all at once or one after the other."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mvit import console
from mvit.config import RunConfig
from mvit.errors import ConfigError, Problem
from mvit.files import json_digest
from mvit.parent import provenance
from mvit.parent.freeze import Planned, Surveys, freeze, plan_again, plan_launch
from mvit.parent.host import Host
from mvit.parent.report.table import Label
from mvit.parent.request.compose import Composer
from mvit.parent.slot import Slot, must_fit
from mvit.parent.sweep.slots import Slots, workers_here
from mvit.places import CHECKOUT
from mvit.rundir.frozen import NOT_THE_RUN, Run
from mvit.rundir.ledger import Event, Ledger, TrialFrozen
from mvit.rundir.paths import new_run_id, writable

LONGEST_NAME = 60
"""Characters of a trial's label in the name of its folder."""


@dataclass(frozen=True)
class Trial:
    """A trial that has its folder."""

    number: int
    label: Label
    run: Run


def identity(config: RunConfig) -> str:
    """The same for two configurations of the same run, wherever they are kept."""
    return json_digest(config.model_dump(mode="json", exclude=set(NOT_THE_RUN)))[:16]


def plan_trials(trials: Sequence[Sequence[str]], *, composer: Composer, host: Host, surveys: Surveys) -> list[Planned]:
    """Compose, check and plan every trial, given by its overrides, before one is frozen.

    Raises `ConfigError` with the problems of all of them: one that every trial has once, another with its trial.
    """
    planned: list[Planned] = []
    problems: dict[str, tuple[Problem, list[int]]] = {}
    for number, overrides in enumerate(trials):
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


def without_repeats(
    planned: Sequence[Planned], trials: Sequence[Sequence[str]], *, known: Sequence[str] = ()
) -> list[tuple[Planned, list[str]]]:
    """The trials, with their overrides, of which none has the configuration of another or of a known one."""
    seen = set(known)
    left: list[tuple[Planned, list[str]]] = []
    for trial, overrides in zip(planned, trials, strict=True):
        if (mine := identity(trial.config)) not in seen:
            seen.add(mine)
            left.append((trial, list(overrides)))
    return left


class Freezer:
    """Makes the folders of a sweep's trials. A trial is planned for the slots that it will have."""

    def __init__(
        self,
        folder: Path,
        slots: Slots,
        *,
        host: Host,
        base: Slot,
        argv: Sequence[str],
        width: int,
        surveys: Surveys,
    ) -> None:
        """`surveys` has the data that the launch has looked at, so that no trial lists it again."""
        self.folder, self.slots, self.host, self.base, self.surveys = folder, slots, host, base, surveys
        self._width = width
        self._made_of = provenance.collect(CHECKOUT, argv=list(argv), dataset_fingerprint="")

    def fitted(self, planned: Planned) -> Planned:
        """The trial, planned for its slots; raises `ConfigError` where it does not fit them."""
        workers = workers_here(planned.plan)
        if self.slots.are_shares:
            planned = plan_again(planned, host=self.slots.host(self.host, workers=workers), surveys=self.surveys)
        must_fit(self.slots.example(self.base, workers=workers), planned.plan, option="sweep.slots")
        return planned

    def freeze(
        self, number: int, label: Label, planned: Planned, overrides: Sequence[str]
    ) -> tuple[Trial, TrialFrozen]:
        """The folder of a trial, and the line that tells of it; raises `RunDirError`."""
        name = f"{number:0{self._width}d}-{as_name(label)}-{new_run_id().rpartition('-')[2]}"
        run = freeze(planned, self.folder / name, made_of=self._made_of)
        event = TrialFrozen(trial=number, folder=name, overrides=tuple(overrides), config=identity(planned.config))
        return Trial(number, label, run), event

    def freeze_all(
        self,
        planned: Sequence[tuple[Planned, Sequence[str]]],
        labels: Sequence[Label],
        *,
        first: int = 0,
        after: Sequence[Event] = (),
    ) -> list[Trial]:
        """Freeze every trial, told in the ledger at once, after these events; or none, and raise `RunDirError`."""
        made: list[tuple[Trial, TrialFrozen]] = []
        try:
            for number, ((trial, overrides), label) in enumerate(zip(planned, labels, strict=True), first):
                made.append(self.freeze(number, label, trial, overrides))
            with writable(self.folder):
                Ledger(self.folder).append(*after, *(event for _, event in made))
        except BaseException:
            for trial, _ in made:
                shutil.rmtree(trial.run.folder.path, ignore_errors=True)
            raise
        return [trial for trial, _ in made]


def as_name(label: Label) -> str:
    """The label of a trial as part of the name of its folder."""
    return re.sub(r"[^A-Za-z0-9._=,+-]+", "_", str(label).replace(" ", ","))[:LONGEST_NAME].rstrip("-_")


def report_repeats(count: int) -> None:
    """Say that trials were left out."""
    if count:
        console.say(f"mvit: skipped {count} duplicate trials (sweep.again=true runs them too)")
