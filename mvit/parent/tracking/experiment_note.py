"""The note of an experiment in MLflow: the results of its runs, and the command that makes the table."""

from __future__ import annotations

import shlex
import socket
from pathlib import Path
from typing import TYPE_CHECKING

from mvit.parent.report.record import read_records
from mvit.parent.report.results import jobs_of, results
from mvit.parent.tracking.note import tags_of_note
from mvit.parent.tracking.store import reason
from mvit.program import MVIT

if TYPE_CHECKING:
    from mvit.parent.tracking.store import MlflowClient

MOST_JOBS = 20
"""Rows of the table."""


def keep_experiment_note(client: MlflowClient, experiment_id: str, *, name: str, uri: str, runs: Path) -> str | None:
    """Put the results of its runs in a folder into the note of an experiment; returns one line where that fails.

    `name` is what its runs have as `tracking.experiment`.
    """
    try:
        current: dict[str, str] = dict(client.get_experiment(experiment_id).tags)
        for key, value in tags_of_note(_experiment_note(name, runs), current).items():
            if current.get(key) != value:
                client.set_experiment_tag(experiment_id, key, value)
    except Exception as error:  # noqa: BLE001  a client raises many kinds, and a note is no reason to lose a run
        return f"MLflow: the note of the experiment is not up to date: {reason(error, uri)}"
    return None


def _experiment_note(name: str, runs: Path) -> str:
    jobs = jobs_of([record for record in read_records([runs]) if record.values.get("tracking.experiment") == name])
    if not jobs:
        return f"No results yet. `{MVIT} table` shows them."
    quote = "'" if '"' in name else '"'
    where = shlex.quote(f"tracking.experiment={quote}{name}{quote}")
    command = f"{MVIT} table {shlex.quote(str(runs.absolute()))} --where {where} --format markdown"
    made_by = f"`{command}` on {socket.gethostname()}"
    more = f"\n\n... and {len(jobs) - MOST_JOBS} more." if len(jobs) > MOST_JOBS else ""
    table = results(jobs[:MOST_JOBS]).without_empty_columns().markdown()
    # MLflow shows the first line alone, until someone opens the note.
    best = f"{jobs[0].accuracy:.2f} % acc@top1 by {jobs[0].run.config.name}, the best of {len(jobs)}"
    return f"**Results**: {best}. Made by {made_by}.\n\n{table}{more}"
