"""Freezing: from a composed configuration to a run folder that anything may execute."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mvit import console
from mvit.config import Data, RunConfig, validated
from mvit.data import dataset
from mvit.data.survey import Survey
from mvit.errors import ConfigError, DataChanged, DatasetError, Problem, RunDirError
from mvit.files import as_utf8, write_json
from mvit.models.kernels.build import Activations, Isa, KernelsUnavailable
from mvit.parent.host import Host
from mvit.parent.kernels import library_for
from mvit.parent.plan import make_plan, without_kernels
from mvit.parent.request.check import check
from mvit.parent.request.launch_rules import (
    WEIGHT_RULES,
    activations_unavailable,
    data_rules,
    host_rules,
    kernels_unavailable,
)
from mvit.parent.request.rules import judge
from mvit.places import PROJECT
from mvit.plan import LaunchPlan
from mvit.rundir.frozen import Run, write_run
from mvit.rundir.paths import RunDir, create_run_dir, writable


@dataclass(frozen=True)
class Planned:
    """A request that may be frozen: legal, and possible here."""

    config: RunConfig
    plan: LaunchPlan
    survey: Survey


class Surveys:
    """What one launch looks at once, however many of its trials use it: data, and the kernels' library."""

    def __init__(self) -> None:
        self._kernels: dict[tuple[Isa, Activations], KernelsUnavailable | None] = {}
        self._surveys: dict[str, Survey] = {}
        self._readable: dict[tuple[str, bool], Survey] = {}

    def of(self, data: Data) -> Survey:
        """The survey of the section `data`; raises `DatasetError`."""
        key = data.model_dump_json()
        if key not in self._surveys:
            with _refusals(DatasetError):
                self._surveys[key] = dataset.survey(data)
        return self._surveys[key]

    def know(self, run: Run) -> None:
        """Take what cannot be looked at again from the run's index; raises `RunDirError` where that is not whole."""
        data, index = run.config.data, run.folder.data_index
        try:
            survey = dataset.survey_of_index(data, facts=run.plan.dataset, index=index)
        except DataChanged as error:
            raise RunDirError(str(error)) from error
        if survey:
            self._surveys[data.model_dump_json()] = survey

    def kernels(self, isa: Isa, activations: Activations) -> None:
        """Build the kernels' library unless it stands; raises `KernelsUnavailable`."""
        key = (isa, activations)
        if key not in self._kernels:
            try:
                library_for(isa, activations, say=console.say)
                self._kernels[key] = None
            except KernelsUnavailable as error:
                self._kernels[key] = error
        if error := self._kernels[key]:
            raise error

    def readable(self, data: Data, *, training: bool, cache: Path) -> Survey:
        """The survey without images that cannot be decoded; raises `ConfigError` where none may be skipped.

        And for one that the system does not read.
        """
        key = (data.model_dump_json(), training)
        if key not in self._readable:
            with _refusals(ConfigError):
                self._readable[key] = self.of(data).readable(
                    training=training,
                    threads=data.workers,
                    cache=cache,
                    before=lambda count: console.say(f"mvit: decoding {count} images once, to find unreadable ones"),
                )
        return self._readable[key]


@contextmanager
def _refusals(kind: type[ConfigError] | type[DatasetError]) -> Generator[None]:
    """Meanwhile what the system refuses to read is an error of that kind."""
    try:
        yield
    except OSError as error:
        rule = f"cannot be read ({error.strerror})"
        remedy = "check its permissions" if isinstance(error, PermissionError) else "check the disk that it is on"
        raise kind(Problem("data", as_utf8(str(error.filename)), rule, remedy)) from error


def plan_launch(raw: Mapping[str, Any], *, host: Host, surveys: Surveys | None = None) -> Planned:
    """Check and plan a composed configuration; raises `ConfigError` with every problem."""
    surveys = surveys or Surveys()
    config, survey = checked(raw, host, surveys)
    if not config.dry_run:
        cache = PROJECT / config.runs_dir / ".readable"
        survey = surveys.readable(config.data, training=config.task.kind == "train", cache=cache)
        if survey.facts.skipped and (problems := list(judge(data_rules(survey.facts), dict(config)))):
            raise ConfigError(*problems)
    return _planned(config, survey, host=host, surveys=surveys)


def plan_again(planned: Planned, *, host: Host, surveys: Surveys) -> Planned:
    """The same request, planned for a machine as another sees it."""
    return _planned(planned.config, planned.survey, host=host, surveys=surveys)


def _planned(config: RunConfig, survey: Survey, *, host: Host, surveys: Surveys) -> Planned:
    plan = make_plan(config, host=host, facts=survey.facts)
    if plan.kernels.isa and not config.dry_run:
        try:
            surveys.kernels(plan.kernels.isa, plan.kernels.activations)
        except KernelsUnavailable as error:
            if config.model.kernels == "fused":
                raise ConfigError(kernels_unavailable(str(error))) from error
            if plan.kernels.activations == "bf16":
                raise ConfigError(activations_unavailable(str(error))) from error
            plan = plan.model_copy(update={"kernels": without_kernels(str(error))})
    return Planned(config, plan, survey)


def runs_of(config: RunConfig) -> Path:
    """Where the run folders of the configuration's name are."""
    return PROJECT / config.runs_dir / config.name


Provenance = tuple[dict[str, Any], str]
"""What `provenance.collect` returns."""


def freeze(planned: Planned, path: Path, *, made_of: Provenance, before: Callable[[RunDir], None] | None = None) -> Run:
    """Make the run folder: what the workers shall do, and what made it. Nothing has started.

    `before` adds to the folder before run.json makes it a run. Raises `RunDirError` where the folder cannot be written;
    then nothing is left of it.
    """
    run = Run(create_run_dir(path), planned.config, planned.plan)
    content, patch = made_of
    try:
        with writable(path):
            planned.survey.write_index(run.folder.data_index)
            write_json(run.folder.provenance, {**content, "dataset_fingerprint": planned.plan.dataset.fingerprint})
            if patch:
                run.folder.patch.write_bytes(patch.encode("utf-8", "surrogateescape"))
            if before:
                before(run.folder)
            write_run(run)
    except BaseException:
        shutil.rmtree(path, ignore_errors=True)
        raise
    return run


def checked(raw: Mapping[str, Any], host: Host, surveys: Surveys) -> tuple[RunConfig, Survey]:
    """The configuration and a survey of its data; raises `ConfigError` with all that is wrong with either."""
    sections, problems = check(raw)
    problems += judge(WEIGHT_RULES, sections)
    if raw.get("dry_run") is not True:  # a plan can be made for cards that are elsewhere
        problems += judge(host_rules(host), sections)
    data, survey = sections.get("data"), None
    if data is None and not problems:  # a task that makes its images itself
        data = validated(raw).data
    if data is not None:
        try:
            survey = surveys.of(data)
            problems += judge(data_rules(survey.facts), sections)
        except DatasetError as error:
            problems.append(error.problem)
    if problems or survey is None:
        raise ConfigError(*problems)
    return validated(raw), survey
