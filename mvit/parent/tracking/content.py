"""What MLflow gets of a run folder beside its journal: parameters, tags, artifacts."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

from mvit.files import read_json, read_mapping
from mvit.parent.tracking.mirror import (
    Status,
)
from mvit.rundir.frozen import read_run
from mvit.rundir.paths import RunDir
from mvit.rundir.status import read_statuses

MAX_ERROR = 5000
"""Characters of a failure's message."""


def of_folder(folder: RunDir) -> tuple[dict[str, str], dict[str, str]]:
    """Parameters and tags of the folder's run, without those of a provenance that is torn; raises `RunDirError`."""
    config, plan = read_run(folder)
    made_of = read_mapping(folder.provenance) or {}
    tags = {
        "mlflow.runName": f"{config.name}-{folder.path.name}",
        "mlflow.source.git.commit": str(made_of.get("commit") or ""),
        "mlflow.user": str(made_of.get("user") or ""),
        "host": str(made_of.get("host") or ""),
        "topology": f"{plan.world_size} {plan.device}",
        "folder": str(folder.path),
    }
    return _flat(config.model_dump(mode="json")), tags


def artifacts_of(folder: RunDir, *, status: Status) -> list[Path]:
    """The files that go with a run that ended so; logs and states where someone will ask why."""
    files = [folder.run, folder.provenance, folder.patch, folder.result, folder.journal, picture_of(folder)]
    if status != "FINISHED":
        files += [folder.error, *sorted(folder.logs.rglob("*.log")), *sorted(folder.status.glob("[!.]*.json"))]
    return [file for file in files if file.is_file()]


def failure_tags(folder: RunDir) -> dict[str, str]:
    """The first cause of a failure, as the parent recorded it, else as a worker did."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        return error_tags(read_json(folder.error))
    errors = [status["error"] for status in read_statuses(folder) if status.get("error")]
    if not errors:
        return {}
    first = min(errors, key=lambda error: error["time"])
    return {"error": f"{first['type']}: {first['message']}"[:MAX_ERROR]}


def error_tags(error: Mapping[str, Any]) -> dict[str, str]:
    """Tags for what error.json holds."""
    return {"error": str(error["message"])[:MAX_ERROR], "error.kind": str(error["kind"])}


def picture_of(folder: RunDir) -> Path:
    """Where the picture of the confusion matrix is."""
    return folder.path / "confusion_matrix.png"


def sync_command(path: Path) -> str:
    """What a person types to send the rest."""
    place = path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
    return f"python -m mvit sync {shlex.quote(str(place))}"


def _flat(value: Any, prefix: str = "") -> dict[str, str]:
    """`{"a": {"b": 1}}` as `{"a.b": "1"}`."""
    if not isinstance(value, dict):
        return {prefix: str(value)}
    parts = cast(dict[str, Any], value)
    return {k: v for key, part in parts.items() for k, v in _flat(part, f"{prefix}.{key}".lstrip(".")).items()}
