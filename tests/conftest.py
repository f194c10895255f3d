"""What tests share: the composed default configuration, and a launch in a process of its own."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

import launch as launch_script
from mvit.config import Data, RunConfig
from mvit.data import dataset
from mvit.data.source import Source
from mvit.parent.request.check import parse
from mvit.parent.request.compose import Composer
from mvit.parent.sweep import execution, schedule
from mvit.parent.tracking.store import prepare
from mvit.rundir.sidecar import Conventions, Position, Sidecar
from tests.stand_ins import StandIns

COMPOSER = Composer()
CHECKOUT = Path(__file__).resolve().parents[1]
OF_THE_MACHINE = ("perf/", "system/")
"""What the metrics begin with that no two runs have alike."""
# A network that compiles in a third of the time of xx_small.
TINY = ("model.depths=[1,1,1]", "model.conv_blocks=[1,1,1,1,1]", "model.name=tiny")


CONVENTIONS = Conventions(
    mean=(0.1, 0.2, 0.3),
    std=(1.0, 1.0, 1.0),
    channel_order="bgr",
    eval_crop_fraction=0.875,
    interpolation="bilinear",
    antialias=True,
    layer_norm_eps=1e-5,
    token_projection="linear",
    num_classes=10,
)


SWEEP = COMPOSER.sweep([])


def sidecar(position: Position, *, conventions: Conventions = CONVENTIONS) -> Sidecar:
    """The sidecar of a checkpoint after the position's step."""
    return Sidecar(step=position.step, epoch=1, run="0" * 64, progress=position, conventions=conventions)


def raw_config(*overrides: str) -> dict[str, Any]:
    """The configuration as launch.py composes it, before it is checked.

    A composition takes a tenth of a second, so each choice of groups is composed once.
    """
    return COMPOSER.compose(overrides)


def of_training(entries: Iterable[dict[str, Any]]) -> Iterator[tuple[dict[str, Any], dict[str, float]]]:
    """Of a journal, the entries with metrics that a run of the same configuration repeats to the bit, and these."""
    for entry in entries:
        metrics = {k: v for k, v in entry.get("metrics", {}).items() if not k.startswith(OF_THE_MACHINE)}
        if metrics:
            yield entry, metrics


@pytest.fixture
def raw():
    return raw_config


@pytest.fixture
def configured():
    def make(*overrides: str) -> RunConfig:
        return parse(raw_config(*overrides))

    return make


def open_data(data: Data) -> tuple[Source, Source]:
    """Both splits as a worker opens them right after the launch."""
    survey = dataset.survey(data)
    with TemporaryDirectory() as room:
        index = Path(room) / "data.npz"
        survey.write_index(index)
        return dataset.open_splits(data, facts=survey.facts, index=index)


@dataclass(frozen=True)
class Launched:
    """A launch that ended."""

    code: int
    out: str
    err: str
    runs: Path

    @property
    def folder(self) -> Path:
        """The one run folder that was made."""
        (found,) = (path.parent for path in self.runs.glob("**/run.json"))
        return found

    def journal(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.folder / "metrics.jsonl").read_text().splitlines()]

    def losses(self) -> list[float]:
        return [e["metrics"]["train/loss"] for e in self.journal() if "train/loss" in e.get("metrics", {})]

    def result(self) -> dict[str, Any]:
        return json.loads((self.folder / "result.json").read_text())


def launcher(tmp_path_factory, *, store: Path | None = None):
    """A function that runs launch.py with overrides, its runs and its store in a new temporary folder.

    The store is a copy of the one given, or made by the launch.
    """

    def start(*overrides: str, env: dict[str, str] | None = None, timeout_s: float = 280) -> Launched:
        room = tmp_path_factory.mktemp("launch")
        if store:
            shutil.copy(store, room / "mlflow.db")
        environment = {**os.environ, "MLFLOW_TRACKING_URI": f"sqlite:///{room}/mlflow.db", **(env or {})}
        overrides = (f"runs_dir={room}/runs", *overrides)
        command = [sys.executable, str(CHECKOUT / "launch.py"), *overrides]
        done = subprocess.run(
            command, capture_output=True, text=True, env=environment, cwd=room, timeout=timeout_s, check=False
        )
        return Launched(done.returncode, done.stdout, done.stderr, room / "runs")

    return start


@pytest.fixture
def launch(tmp_path_factory, empty_store):
    return launcher(tmp_path_factory, store=empty_store)


@pytest.fixture
def launch_here(tmp_path_factory, monkeypatch, capfd):
    """launch.py in this process, without an MLflow."""

    def start(*overrides: str) -> Launched:
        room = tmp_path_factory.mktemp("launch")
        monkeypatch.chdir(room)
        monkeypatch.setattr(sys, "argv", ["launch.py", f"runs_dir={room}/runs", "tracking=none", *overrides])
        code = launch_script.main()
        out, err = capfd.readouterr()
        return Launched(code, out, err, room / "runs")

    return start


@pytest.fixture
def stand_ins(monkeypatch) -> StandIns:
    """The processes of a sweep's trials, which mostly end at once."""
    made = StandIns()
    monkeypatch.setattr(execution, "command_of", made)
    monkeypatch.setattr(schedule, "LOOK_EVERY_S", 0.02)
    return made


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory) -> Path:
    """A SQLite store without an experiment; making one takes seconds, copying it nothing."""
    database = tmp_path_factory.mktemp("store") / "mlflow.db"
    prepare(f"sqlite:///{database}")
    return database
