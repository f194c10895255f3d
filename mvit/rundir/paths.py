"""The run folder: where its files are, and who writes each.

runs/<name>/<time>-<id>/
    run.json            configuration and plan, hashed; written once, when the run is frozen (frozen.py)
    data.npz            which image files the data has, for the workers; written with run.json, if data are image files
    provenance.json     code, versions, host, data and command behind the run; code.patch beside it
    metrics.jsonl       the journal, a line per entry, written by rank 0 (journal.py)
    status/<rank>.json  stage, step, heartbeat and error of each process (status.py)
    logs/attempt-<n>/   a file per process; logs/launcher.log: what the launcher of a trial said
    checkpoints/        last, best and kept ones (checkpoints.py)
    confusion.json      class by class counts of the best evaluation, written by rank 0
    predictions.npz     its logits (n, k) and labels (n,), in the order of the held-out set (predictions.py)
    answers.jsonl       of task=predict: the most probable classes of each image, written by rank 0 (answers.py)
    exported/           of task=export: the network in other formats, and what it takes (exported.py)
    profile/            of task=profile: tables of operators, and traces, written by rank 0 (profile.py)
    result.json         final and best numbers, written last by rank 0 (result.py)
    tracking.json       where the run is mirrored, and how far; written by the parent (tracking.py)
    job.sh, job.json    of a run that was submitted: the script, and the scheduler's number for it (job.py)
    nodes/              what the parents of several machines tell each other (nodes.py)
    faults.jsonl        on which machine attempts failed (faults.py)
    stop.json           the parent's request to stop;  stop_at.json: rank 0's answer (stop.py)
    launcher.json       the process that looks after the run (launcher.py, ownership.py)
    error.json          the first cause of a failure, written by the parent
    end.json            how the run ended, and whether its mirror knows; written by the parent (ending.py)

A sweep's folder holds one such folder per trial, and ledger.jsonl, its truth (ledger.py).
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
    def data_index(self) -> Path:
        return self.path / "data.npz"

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
    def launcher_log(self) -> Path:
        """Of a trial: what its launcher says, which has no terminal."""
        return self.logs / "launcher.log"

    def attempt_logs(self, attempt: int) -> Path:
        return self.logs / f"attempt-{attempt}"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def confusion(self) -> Path:
        return self.path / "confusion.json"

    @property
    def predictions(self) -> Path:
        return self.path / "predictions.npz"

    @property
    def answers(self) -> Path:
        return self.path / "answers.jsonl"

    def answers_of(self, rank: int) -> Path:
        """A worker's share of them, until all are there."""
        return self.path / f".answers-{rank}.jsonl"

    @property
    def exported(self) -> Path:
        return self.path / "exported"

    @property
    def profile(self) -> Path:
        return self.path / "profile"

    @property
    def confusion_picture(self) -> Path:
        """Drawn by the parent at the end of the run."""
        return self.path / "confusion_matrix.png"

    @property
    def result(self) -> Path:
        return self.path / "result.json"

    @property
    def job_script(self) -> Path:
        return self.path / "job.sh"

    @property
    def job(self) -> Path:
        return self.path / "job.json"

    @property
    def nodes(self) -> Path:
        """Of a run on several machines."""
        return self.path / "nodes"

    @property
    def faults(self) -> Path:
        return self.path / "faults.jsonl"

    @property
    def stop(self) -> Path:
        return self.path / "stop.json"

    @property
    def stop_at(self) -> Path:
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

    @property
    def tracking(self) -> Path:
        return self.path / "tracking.json"

    @property
    def ledger(self) -> Path:
        """Of the folder of a sweep."""
        return self.path / "ledger.jsonl"


def new_run_id() -> str:
    """`<time>-<id>`: sorts by time; the random part keeps two runs of one second apart.

    The id begins with a letter: on a command line, 6163 and 1e45 are numbers.
    """
    return f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.choice('abcdef')}{secrets.token_hex(2)[1:]}"


def create_run_dir(path: Path) -> RunDir:
    """Make a new run folder; an existing one is never reused."""
    try:
        path.mkdir(parents=True, exist_ok=False)
        for part in ("status", "logs", "checkpoints"):
            (path / part).mkdir()
    except OSError as error:
        raise RunDirError(f"cannot create the run folder {path}: {error.strerror}") from error
    return RunDir(path)


@contextmanager
def writable(path: Path) -> Generator[None]:
    """Around what a run cannot start without: where the disk refuses, `RunDirError` says so."""
    try:
        yield
    except OSError as error:
        raise RunDirError(f"cannot write to {path}: {error.strerror}") from error
