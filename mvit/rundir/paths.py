"""The run folder: its names, its atomic writes, its journal.

runs/<name>/<time>-<id>/
    run.json            configuration and plan, hashed; written once by the parent
    provenance.json     what code, versions and host made the run; code.patch beside it
    metrics.jsonl       the journal, a line per entry, written by rank 0
    status/<rank>.json  stage, step, heartbeat and error of each process
    logs/attempt-<n>/   a file per process
    checkpoints/        see `checkpoints.py`
    confusion.json      class by class counts of the best evaluation
    result.json         final and best numbers, written last
    tracking.json       where the run is mirrored
    stop.json, stop_at.json   between parent and workers, while a run is stopped
    launcher.json       the process that looks after the run
    error.json          the first cause of a failure
    end.json            how the run ended, and whether its mirror knows; written by the parent
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from mvit.errors import RunDirError


@dataclass(frozen=True)
class RunDir:
    """Where the files of one run are."""

    path: Path

    @property
    def run(self) -> Path:
        return self.path / "run.json"

    @property
    def provenance(self) -> Path:
        return self.path / "provenance.json"

    @property
    def patch(self) -> Path:
        return self.path / "code.patch"

    @property
    def journal(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def status(self) -> Path:
        return self.path / "status"

    @property
    def logs(self) -> Path:
        return self.path / "logs"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def confusion(self) -> Path:
        return self.path / "confusion.json"

    @property
    def result(self) -> Path:
        return self.path / "result.json"

    @property
    def stop(self) -> Path:
        """The parent's wish that the workers write a checkpoint and end."""
        return self.path / "stop.json"

    @property
    def stop_at(self) -> Path:
        """Rank 0's answer: the step after which all of them do."""
        return self.path / "stop_at.json"

    @property
    def launcher(self) -> Path:
        return self.path / "launcher.json"

    @property
    def error(self) -> Path:
        return self.path / "error.json"

    @property
    def end(self) -> Path:
        return self.path / "end.json"

    def attempt_logs(self, attempt: int) -> Path:
        return self.logs / f"attempt-{attempt}"

    @property
    def tracking(self) -> Path:
        return self.path / "tracking.json"


def new_run_id() -> str:
    """`<time>-<id>`: sorts by time; the random part keeps two runs of one second apart."""
    return f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"


def create_run_dir(path: Path) -> RunDir:
    """Make a new run folder; an existing one is never reused."""
    try:
        path.mkdir(parents=True, exist_ok=False)
        for part in ("status", "logs", "checkpoints"):
            (path / part).mkdir()
    except OSError as error:
        raise RunDirError(f"cannot make the run folder {path}: {error.strerror}") from error
    return RunDir(path)


@contextmanager
def writable(path: Path) -> Generator[None]:
    """What a run cannot begin without: where the disk refuses, `RunDirError` says so."""
    try:
        yield
    except OSError as error:
        raise RunDirError(f"{path} cannot be written: {error.strerror}") from error
