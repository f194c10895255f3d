"""The note of a run in MLflow: what it came to and was made of, and the commands that go on from it."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path

from mvit.files import json_digest, read_mapping
from mvit.parent.report.row import result_row
from mvit.parent.report.table import result_lines
from mvit.parent.tracking.store import MlflowStatus
from mvit.program import MVIT
from mvit.rundir.ending import read_failure
from mvit.rundir.fork import read_fork
from mvit.rundir.frozen import Run
from mvit.rundir.result import read_result

NOTE = "mlflow.note.content"
WRITTEN = "mvit.note"
"""The sha256 of a note as it was written: what differs from it, a person has changed."""
LONGEST = 4500
"""Characters of a note, within MLflow's limit for a tag of an experiment, also where each takes four bytes."""


def note_of(run: Run, status: MlflowStatus) -> str:
    """Markdown: the result, what it was made of, and what to type next."""
    return "\n".join(_lines(run, status))


def tags_of_note(note: str, current: Mapping[str, str]) -> dict[str, str]:
    """The tags that set a note; none where a person has written one."""
    theirs = current.get(NOTE)
    if theirs is not None and json_digest(theirs) != current.get(WRITTEN):
        return {}
    note = note if len(note) <= LONGEST else f"{note[:LONGEST]}\n..."
    return {NOTE: note, WRITTEN: json_digest(note)}


def _lines(run: Run, status: MlflowStatus) -> Iterator[str]:
    folder, made_of = run.folder, read_mapping(run.folder.provenance) or {}
    if (result := read_result(folder)) and status == "FINISHED":
        yield from ("| | |", "|---|---|")
        for name, value in result_lines(result_row(run, result)):
            yield f"| {name} | {value} |"
    else:
        failure = read_failure(folder)
        yield f"**{status}**" + (f": {failure.message}" if failure else "")
    data = run.plan.dataset
    yield ""
    images = f"{data.num_train} and {data.num_val} images"
    yield f"- data: {run.config.data.kind}, {images}, fingerprint `{data.fingerprint[:12]}`"
    if commit := made_of.get("commit"):
        changes = ", with the changes in `code.patch`" if folder.patch.exists() else ""
        yield f"- code: commit `{str(commit)[:12]}`{changes}"
    elif version := made_of.get("mvit"):
        yield f"- code: mvit {version}"
    if command := made_of.get("command"):
        yield f"- made by: `{command}`"
    if fork := read_fork(folder):
        yield f"- fork of: `{fork.name}`, after step {fork.step}"
    if status == "FINISHED" and not fork:
        yield f"- reproduce: `{_absolute('reproduce', folder.path)}`"
    elif status != "FINISHED":
        yield f"- continue: `{_absolute('resume', folder.path)}`"


def _absolute(word: str, path: Path) -> str:
    """A command that works in any directory where mvit does."""
    return f"{MVIT} {word} {shlex.quote(str(path.absolute()))}"
