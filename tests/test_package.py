"""The package: a wheel holds all that a checkout needs to run, and `mvit` works without the checkout."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import venv
from collections.abc import Callable
from pathlib import Path
from zipfile import ZipFile

import pytest

from mvit import __version__
from mvit.rundir.frozen import read_run
from mvit.rundir.paths import RunDir
from tests.conftest import CHECKOUT, TINY

pytestmark = pytest.mark.mindspore

GUIDE = CHECKOUT / "docs/guides/package.md"
FILES = re.findall(r"^```yaml\n# (\S+)\n(.*?)^```$", GUIDE.read_text(), re.MULTILINE | re.DOTALL)
"""The files of the repository that the guide shows."""
LAUNCHES = re.findall(r"^    mvit (launch --config-dir.*)$", GUIDE.read_text(), re.MULTILINE)
SOURCES = ("conf", "experiments", "hydra_plugins", "mvit")
PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check", "-q")

Mvit = Callable[..., subprocess.CompletedProcess[str]]


def tracked(*names: str) -> list[str]:
    """The files of the checkout below these, without what another test is just writing there."""
    return subprocess.check_output(["git", "ls-files", *names], cwd=CHECKOUT, text=True).split()


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Built of a copy: setuptools leaves files beside the sources."""
    copy, out = tmp_path_factory.mktemp("clone"), tmp_path_factory.mktemp("wheels")
    for name in tracked(*SOURCES, "pyproject.toml", "constraints.txt", "LICENSE", "README.md", "launch.py"):
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(CHECKOUT / name, copy / name, follow_symlinks=False)
    subprocess.run([*PIP, "wheel", "--no-deps", "--no-build-isolation", "-w", out, copy], check=True)
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def packages(wheel, tmp_path_factory) -> Path:
    """The wheel, installed into a folder of its own."""
    folder = tmp_path_factory.mktemp("packages")
    subprocess.run([*PIP, "install", "--no-deps", "--no-index", "--target", folder, wheel], check=True)
    return folder


@pytest.fixture
def mvit(packages, tmp_path) -> Mvit:
    """The installed command, in a new folder that holds nothing else than the files of the guide."""
    for name, text in FILES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)

    def call(*words: str) -> subprocess.CompletedProcess[str]:
        environment = {name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"}
        environment["PYTHONPATH"] = str(packages)
        command = [packages / "bin/mvit", *words]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)

    return call


def test_a_wheel_holds_code_configuration_experiments_and_kernels_and_nothing_else(wheel):
    moved = (("experiments/", "mvit/conf/experiment/"), ("con", "mvit/con"))  # conf/, constraints.txt
    expected = {
        next((name.replace(old, new, 1) for old, new in moved if name.startswith(old)), name)
        for name in tracked(*SOURCES, "constraints.txt")
        if not (CHECKOUT / name).is_dir()  # a link
    }
    with ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert names == expected
    assert wheel.name == f"mvit-{__version__}-py3-none-any.whl"


def test_the_installed_command_names_itself(mvit, tmp_path):
    assert mvit("--version").stdout == f"mvit {__version__}\n"
    assert mvit("--help").stdout.startswith("usage: mvit [-h]")
    shown = mvit("launch", "--help").stdout
    assert "\n  mvit launch -m optimizer.lr=1e-3,2e-3 " in shown
    assert "python" not in shown
    wrong = mvit("launch", "optimizer.lrr=1")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert wrong.stderr == "mvit: optimizer.lrr: unknown key; did you mean optimizer.lr?\n"
    nobody = mvit("resume", "nobody")
    assert (nobody.returncode, nobody.stdout) == (2, "")
    assert not (tmp_path / "runs").exists()


def test_a_repository_without_the_pages_cannot_publish(mvit, tmp_path):
    done = mvit("publish")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "mvit: README.md is missing: publish writes its tables into it\n"


@pytest.mark.long
def test_the_repository_of_the_guide_sweeps_its_own_experiment_on_its_own_images(mvit, tmp_path):
    """A sweep of one trial, on two workers: every kind of process that a launch starts."""
    assert mvit("synthetic", "images", "--size", "80x60").returncode == 0
    asked = ("--config-dir", "conf", "experiment=first", "topology=cpu_2", "train.max_steps=1", *TINY)
    frozen = mvit("launch", *asked, "-m", "seed=7", "freeze=true")
    assert frozen.returncode == 0, frozen.stderr
    *_, command, sweep = frozen.stdout.splitlines()
    assert sweep.startswith("runs/first/")
    assert command == f"mvit: frozen; execute them with: mvit resume {sweep}"
    done = mvit("resume", sweep)
    assert done.returncode == 0, done.stdout + done.stderr
    (trial,) = (path.parent for path in (tmp_path / sweep).glob("*/result.json"))
    config = read_run(RunDir(trial)).config.model_dump()
    assert (config["seed"], config["data"]["root"]) == (7, str(tmp_path / "images"))
    made_of = json.loads((trial / "provenance.json").read_text())
    assert (made_of["mvit"], made_of["commit"]) == (__version__, None)
    assert made_of["git_problem"] == f"mvit {__version__} was not installed from a repository"
    assert (tmp_path / "mlflow.db").is_file()
    assert "1 trials: 1 FINISHED" in mvit("ls").stdout


def test_the_launches_of_the_guide_are_legal_in_its_repository(mvit):
    assert mvit("synthetic", "images", "--size", "80x60").returncode == 0
    assert len(LAUNCHES) > 3
    for words in LAUNCHES:
        done = mvit(*shlex.split(words), "dry_run=true")
        assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_the_wheel_alone_in_an_empty_environment_runs_the_default_job_and_a_sweep(wheel, tmp_path):
    """What pip installs beside it comes from the package index."""
    venv.create(tmp_path / "venv", with_pip=True)
    program = tmp_path / "venv/bin"
    install = (program / "python", "-m", "pip", "install", "-q", "--disable-pip-version-check")
    subprocess.run([*install, "-c", CHECKOUT / "constraints.txt", wheel], check=True)
    environment = {k: v for k, v in os.environ.items() if k not in ("MLFLOW_TRACKING_URI", "PYTHONPATH")}
    project = tmp_path / "project"
    project.mkdir()
    if sys.version_info >= (3, 11):  # older ones import from the working directory first
        (project / "random.py").write_text("raise SystemExit('imported from the working directory')\n")

    def mvit(*words: str) -> str:
        return subprocess.check_output([program / "mvit", *words], cwd=project, env=environment, text=True)

    assert "mvit: FINISHED in " in mvit("launch")
    mvit("launch", "-m", "seed=1,2", "train.max_steps=3")
    assert len(list(project.glob("runs/*/*/*/result.json"))) == 2
    assert "the default job can run here: mvit launch" in mvit("doctor")
