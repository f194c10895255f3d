"""What a person reads before a run is executed: what it is, and where, or where it goes on."""

from __future__ import annotations

from mvit import console
from mvit.console import shown
from mvit.errors import RunDirError
from mvit.files import read_mapping
from mvit.parent import provenance
from mvit.parent.describe import describe
from mvit.parent.provenance import code_of
from mvit.parent.report.estimate import past_runs
from mvit.places import CHECKOUT, PROJECT
from mvit.rundir.checkpoints import newest_first, newest_step
from mvit.rundir.frozen import Run
from mvit.rundir.paths import RunDir
from mvit.rundir.state import run_status


def announce(run: Run) -> None:
    """The plan of a run that was not started, else where it resumes, and whether the code has changed since."""
    place = shown(run.folder.path)
    if run_status(run.folder) == "FROZEN":
        console.say(f"mvit: {run.config.name} in {place}")
        console.pairs(
            describe(run.config, run.plan, past=past_runs(run.config, run.plan, PROJECT / run.config.runs_dir))
        )
        return
    console.say(f"mvit: {run.config.name} in {place}, resumed {resumes_at(run.folder)}")
    if code := _code_has_changed(run.folder):
        console.say(code)


def resumes_at(folder: RunDir) -> str:
    """Where the run goes on, in words; raises `RunDirError` if all its checkpoints are damaged."""
    if (step := newest_step(folder)) is not None:
        return f"after step {step}"
    if next(newest_first(folder.checkpoints), None) is None:
        return "from the beginning: it has no checkpoint"
    raise RunDirError(f"{folder.checkpoints}: none of its checkpoints is whole; remove them to start over")


def _code_has_changed(folder: RunDir) -> str | None:
    """Says so where the code is not what the run was made with: its numbers are then of both."""
    made_of = read_mapping(folder.provenance) or {}
    now, patch = provenance.collect(CHECKOUT, argv=[], dataset_fingerprint="")
    before = folder.patch.read_bytes().decode("utf-8", "surrogateescape") if folder.patch.is_file() else ""
    if (code_of(made_of), before) == (code_of(now), patch):
        return None
    return f"mvit: the code has changed since the run was made, at {code_of(made_of)}"
