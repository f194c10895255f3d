"""Reopening: a frozen folder that may be executed, for the first time or again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

from mvit.config import RunConfig, validated
from mvit.console import mvit_command
from mvit.errors import ConfigError, DataChanged, Problem, RunDirError
from mvit.parent.announce import resumes_at
from mvit.parent.freeze import Surveys, checked
from mvit.parent.host import this_host
from mvit.parent.request.compose import override
from mvit.rundir.frozen import Run, read_run
from mvit.rundir.ownership import must_be_over
from mvit.rundir.paths import RunDir
from mvit.rundir.state import run_status

MAY_CHANGE = ("limits.", "train.max_restarts", "topology.hosts", "verbose")
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
    surveys = surveys or Surveys()
    surveys.know(run)
    _, survey = checked(config.model_dump(mode="json"), this_host(), surveys)
    if survey.facts.fingerprint != run.plan.dataset.fingerprint:
        raise RunDirError(f"{folder.path}: its data has changed since the run was made; start a new run")
    try:
        survey.check_index(folder.data_index, facts=run.plan.dataset)
    except DataChanged as error:
        raise RunDirError(str(error)) from error
    must_be_over(folder)
    resumes_at(folder)
    return replace(run, config=config)


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
