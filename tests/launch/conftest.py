"""MLflow stores and run folders for the tests of the parent."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mvit import rundir
from mvit.config import MlflowTracking
from mvit.launch import tracking
from mvit.launch.tracking import Tracker
from mvit.rundir import Journal, RunDir


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory) -> Path:
    """A SQLite store without an experiment; making one takes seconds, copying it nothing."""
    database = tmp_path_factory.mktemp("store") / "mlflow.db"
    tracking.prepare(f"sqlite:///{database}")
    return database


@pytest.fixture
def store(empty_store, tmp_path) -> str:
    """The URI of a store of the test's own."""
    (tmp_path / "a store").mkdir()
    copy = shutil.copy(empty_store, tmp_path / "a store" / "mlflow.db")
    return f"sqlite:///{copy}"


@pytest.fixture
def folder(tmp_path) -> RunDir:
    return rundir.create(tmp_path / "runs" / "run")


@pytest.fixture
def journal(folder) -> Iterator[Journal]:
    opened = Journal(folder.journal)
    yield opened
    opened._file.close()


@pytest.fixture
def tracker(folder, monkeypatch) -> Callable[..., Tracker]:
    """Makes trackers of the test's run folder."""
    monkeypatch.setattr(tracking, "FLUSH_EVERY_S", 0.1)

    def make(
        uri: str,
        *,
        params: dict[str, str] | None = None,
        tags: dict[str, str] | None = None,
        parent_run_id: str | None = None,
    ) -> Tracker:
        return Tracker(
            folder,
            tracking=MlflowTracking(kind="mlflow", uri=None, experiment="mvit"),
            uri=uri,
            params=params or {},
            tags=tags or {"mlflow.runName": "a run"},
            parent_run_id=parent_run_id,
        )

    return make
