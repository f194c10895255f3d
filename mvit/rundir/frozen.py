"""run.json: a run as it was frozen, configuration and plan, hashed."""

from __future__ import annotations

import json
from dataclasses import dataclass

from mvit.config import RunConfig, validated_json
from mvit.errors import RunDirError
from mvit.files import json_digest, read_json, read_mapping, write_json
from mvit.plan import LaunchPlan
from mvit.rundir.paths import RunDir

SCHEMA = 9
OF_THE_LAUNCHER = frozenset(("dry_run", "freeze", "verbose"))
"""What only the launcher that freezes or executes the run reads."""
NOT_THE_RUN = OF_THE_LAUNCHER | {"name", "runs_dir", "tracking", "limits", "launch"}
"""Sections of the configuration that say where a run is and how it is called, not what it is."""


@dataclass(frozen=True)
class Run:
    """A frozen run: its folder, its configuration, its plan. What the parent executes and the workers read."""

    folder: RunDir
    config: RunConfig
    plan: LaunchPlan


class OtherVersion(RunDirError):
    """A run folder that another version of mvit has made."""


def write_run(run: Run) -> None:
    """Freeze: from here on, edits to YAML change nothing."""
    content = {
        "schema": SCHEMA,
        "config": run.config.model_dump(mode="json"),
        "plan": run.plan.model_dump(mode="json"),
    }
    write_json(run.folder.run, {**content, "sha256": json_digest(content)})


def read_run(folder: RunDir) -> Run:
    """What `write_run` froze; raises `RunDirError` for a folder that is torn or edited, or `OtherVersion`."""
    try:
        content = read_json(folder.run)
        digest = content.pop("sha256")
        schema = content["schema"]
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise RunDirError(f"{folder.path} is not a run folder: run.json is missing or torn") from error
    if schema != SCHEMA:
        raise OtherVersion(f"{folder.run} has schema {schema}, this mvit reads {SCHEMA}; {_other_version(folder)}")
    if digest != json_digest(content):
        raise RunDirError(f"{folder.run} was edited after the run was frozen (sha256 differs); start a new run instead")
    try:
        config = validated_json(json.dumps(content["config"]))
        plan = LaunchPlan.model_validate_json(json.dumps(content["plan"]))
    except (KeyError, ValueError) as error:  # whole and unedited, so written by another version
        raise OtherVersion(f"{folder.run} does not fit this version of mvit; {_other_version(folder)}") from error
    return Run(folder, config, plan)


def run_digest(folder: RunDir) -> str:
    """The sha256 that run.json holds: the identity of what was asked for."""
    return str(read_json(folder.run)["sha256"])


def _other_version(folder: RunDir) -> str:
    made_of = read_mapping(folder.provenance) or {}
    if commit := made_of.get("commit"):
        return f"use the commit that made it: git checkout {commit[:10]}"
    return f"use the version that made it: {made_of['mvit']}" if made_of.get("mvit") else "use the version that made it"
