"""MLflow stores and run folders for the tests of the parent."""

import shutil
import socket
from collections.abc import Callable, Iterator

import pytest

from mvit.config import MlflowTracking
from mvit.data import dataset
from mvit.files import write_json
from mvit.parent import provenance
from mvit.parent.host import this_host
from mvit.parent.plan import make_plan
from mvit.parent.report.publication import BEGIN, END
from mvit.parent.tracking import live
from mvit.parent.tracking.content import dataset_of, parameters_of, tags_of
from mvit.parent.tracking.live import Tracker
from mvit.places import PROJECT
from mvit.rundir import paths
from mvit.rundir.frozen import Run, read_run, write_run
from mvit.rundir.journal import Journal
from mvit.rundir.paths import RunDir
from tests.served import Served


@pytest.fixture
def store(empty_store, tmp_path) -> str:
    """The URI of a store of the test's own."""
    (tmp_path / "a store").mkdir()
    copy = shutil.copy(empty_store, tmp_path / "a store" / "mlflow.db")
    return f"sqlite:///{copy}"


@pytest.fixture
def folder(tmp_path) -> RunDir:
    return paths.create_run_dir(tmp_path / "runs" / "run")


@pytest.fixture
def journal(folder) -> Iterator[Journal]:
    opened = Journal(folder.journal)
    yield opened
    opened._file.close()


@pytest.fixture
def tracker(folder, monkeypatch) -> Callable[..., Tracker]:
    """Makes trackers of the test's run folder."""
    monkeypatch.setattr(live, "FLUSH_EVERY_S", 0.1)

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


@pytest.fixture
def run_folder(configured, tmp_path) -> Callable[..., RunDir]:
    """Makes run folders as the launcher does, below `runs/x`."""

    def make(name: str, *overrides: str, argv: tuple[str, ...] = ("launch.py",)) -> RunDir:
        made = paths.create_run_dir(tmp_path / "runs" / "x" / name)
        config = configured(*overrides)
        facts = dataset.survey(config.data).facts
        write_run(Run(made, config, make_plan(config, host=this_host(), facts=facts)))
        made_of, patch = provenance.collect(PROJECT, argv=list(argv), dataset_fingerprint=facts.fingerprint)
        write_json(made.provenance, made_of)
        if patch:
            made.patch.write_text(patch, encoding="utf-8", errors="surrogateescape")
        return made

    return make


@pytest.fixture
def mirrored(monkeypatch) -> Callable[[RunDir, str], Tracker]:
    """Starts what mirrors a run folder, as the launcher does."""
    monkeypatch.setattr(live, "FLUSH_EVERY_S", 0.1)

    def start(folder: RunDir, uri: str, *, parent_run_id: str | None = None) -> Tracker:
        run = read_run(folder)
        where = MlflowTracking(kind="mlflow", uri=None, experiment="mvit")
        started = Tracker(
            folder,
            tracking=where,
            uri=uri,
            params=parameters_of(run),
            tags=tags_of(run),
            parent_run_id=parent_run_id,
            dataset=dataset_of(run),
        )
        started.start()
        return started

    return start


@pytest.fixture
def closed_port() -> int:
    """A port nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def served(store, closed_port) -> Iterator[Served]:
    server = Served(store, closed_port)
    yield server
    server.down()


@pytest.fixture
def pages_root(tmp_path):
    """A checkout with pages that have a place for tables."""
    made = tmp_path / "checkout"
    (made / "docs").mkdir(parents=True)
    (made / "experiments" / "results").mkdir(parents=True)
    for page in ("README.md", "docs/results.md"):
        (made / page).write_text(f"before\n{BEGIN}\n{END}\nafter\n")
    (made / "experiments" / "seeds.yaml").write_text("# cost: x\n# found:    by hand\nname: seeds\n")
    (made / "experiments" / "other.yaml").write_text("name: other\n")
    return made
