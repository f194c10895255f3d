"""run.json: the configuration and the plan of a run, hashed."""

from __future__ import annotations

import json

from mvit.config import RunConfig
from mvit.errors import RunDirError
from mvit.files import json_digest, read_json, write_json
from mvit.plan import LaunchPlan
from mvit.rundir.paths import RunDir

SCHEMA = 3


def write_run(folder: RunDir, config: RunConfig, plan: LaunchPlan) -> None:
    """Freeze what the workers shall do."""
    content = {"schema": SCHEMA, "config": config.model_dump(mode="json"), "plan": plan.model_dump(mode="json")}
    write_json(folder.run, {**content, "sha256": json_digest(content)})


def read_run(folder: RunDir) -> tuple[RunConfig, LaunchPlan]:
    """What `write_run` froze; raises `RunDirError` for a folder that is torn, changed or of another version."""
    try:
        content = read_json(folder.run)
        digest = content.pop("sha256")
        schema = content["schema"]
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise RunDirError(f"{folder.path} is no run folder: run.json is missing or torn") from error
    if schema != SCHEMA:
        raise RunDirError(f"{folder.run} has schema {schema}, this mvit reads {SCHEMA}; use the commit that made it")
    if digest != json_digest(content):
        raise RunDirError(f"{folder.run} was changed after the run was made (sha256 differs); start a new run instead")
    try:
        config = RunConfig.model_validate_json(json.dumps(content["config"]))
        return config, LaunchPlan.model_validate_json(json.dumps(content["plan"]))
    except (KeyError, ValueError) as error:  # whole and unchanged, so written by another version
        raise RunDirError(f"{folder.run} holds what this mvit does not know; use the commit that made it") from error
