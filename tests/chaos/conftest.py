"""Two workers that are attacked, and how long it took."""

import shutil
from statistics import median

import pytest

from tests.chaos.disk import Disk, unmount
from tests.scene import RECIPE, Scene

TWO_WORKERS = (*RECIPE, "topology=cpu_2")
TIMES: dict[str, list[float]] = {}


@pytest.fixture
def scene(tmp_path, empty_store):
    made = Scene(tmp_path, recipe=TWO_WORKERS)
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    yield made
    made.make_room()


@pytest.fixture
def disk(scene, request):
    """Where the scene's runs are: 64 MB, or as many as a test asks for."""
    made = Disk(scene.path / "disk", getattr(request, "param", 64))
    scene.runs = made.path / "runs"
    yield made
    scene.make_room()
    unmount(made.path)


@pytest.fixture
def measured(request):
    """Takes seconds that the summary shows, under what they are of; a busy machine is no reason to fail."""

    def take(what: str, seconds: float) -> None:
        request.node.user_properties.append((what, seconds))

    return take


def pytest_runtest_logreport(report):
    if report.when == "call":  # in the process that prints the summary, whichever ran the test
        for what, seconds in report.user_properties:
            TIMES.setdefault(what, []).append(seconds)


def pytest_terminal_summary(terminalreporter):
    for what, seconds in TIMES.items():
        worst, middle = max(seconds), median(seconds)
        terminalreporter.write_line(f"{what}: {worst:.1f} s at most, {middle:.1f} s in the median of {len(seconds)}")
