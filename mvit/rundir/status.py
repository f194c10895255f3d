"""status/<rank>.json: what each process says of itself."""

from __future__ import annotations

from typing import Any

from mvit.files import read_mapping
from mvit.rundir.paths import RunDir

SAID = {"rank": int, "pid": int, "started": int, "stage": str, "step": int, "error": (dict, type(None)), "time": float}
"""What a status holds, whatever else."""


def read_statuses(folder: RunDir) -> list[dict[str, Any]]:
    """What the workers say of themselves, by rank; the scheduler's is rank -1. What is torn says nothing."""
    found: list[dict[str, Any]] = []
    for path in folder.status.glob("[!.]*.json"):
        said = read_mapping(path)
        if said and all(isinstance(said.get(key), type_) for key, type_ in SAID.items()):
            found.append(said)
    return sorted(found, key=lambda status: status["rank"])


def workers_finished(folder: RunDir) -> bool:
    """Whether the workers came to their end, as they say themselves."""
    workers = [status for status in read_statuses(folder) if status["rank"] >= 0]
    return folder.result.exists() and bool(workers) and all(status["stage"] == "done" for status in workers)
