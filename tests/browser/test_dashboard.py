"""The dashboard as a person sees it: a real browser, on a real server, over real runs.

Tables and charts are looked at apart: MLflow promises to keep what a view says of its table alone.

`make screenshots` runs the tests of the charts over the runs of this project's own store, and keeps what they see.
"""

import os
import re
import shutil
import subprocess
import sys
import time
from contextlib import contextmanager

import pytest

from mvit.dashboard import Bar, Line, read_views
from mvit.parent.host import free_port
from mvit.parent.report.grid import Grid
from mvit.parent.report.page import page
from tests.conftest import CHECKOUT, TINY, launcher
from tests.served import Served

pytestmark = [pytest.mark.mindspore, pytest.mark.mlflow, pytest.mark.timeout(300)]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
SMALL = (*TINY, "data=synthetic", "data.image_size=32", "data.num_train=64", "data.num_val=20", "data.classes=4")
SMALL = (*SMALL, "train.epochs=2", "train.global_batch_size=8", "train.eval_batch_size=10")
SCREENSHOTS, STORE = os.environ.get("MVIT_SCREENSHOTS"), os.environ.get("MVIT_STORE")
"""Where pictures of the views are kept, and the store that they show."""
SHOWN_WITHIN_MS = 60_000
DRAWN_WITHIN_MS = 5_000
COLUMNS_WITHIN_S = 30.0


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A run, a sweep of two trials, and an evaluation, in one store."""
    if STORE:
        return STORE
    uri = f"sqlite:///{tmp_path_factory.mktemp('store')}/mlflow.db"
    launch = launcher(tmp_path_factory)
    here = {"MLFLOW_TRACKING_URI": uri}
    trained = launch(*SMALL, env=here)
    assert trained.code == 0, trained.err
    assert launch(*SMALL, "-m", "optimizer.lr=1e-3,2e-3", env=here).code == 0
    assert launch("task=evaluate", f"task.checkpoint={trained.folder}", env=here).code == 0
    return uri


@pytest.fixture(scope="module")
def server(store):
    served = Served(store, free_port())
    served.up()
    yield served.uri
    served.down()


@pytest.fixture(scope="module")
def browser():
    if CHROMIUM is None:
        pytest.skip("needs Chromium: apt install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as tool:
        made = tool.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"] if os.geteuid() == 0 else [])
        yield made
        made.close()


@contextmanager
def opened(browser, address):
    """A wide page, all of whose requests stay on this machine and succeed."""
    page = browser.new_page(viewport={"width": 2600, "height": 1600})
    away, failed = [], []
    page.on("request", lambda sent: None if _stays(sent.url) else away.append(sent.url))
    page.on("response", lambda answer: failed.append(answer.url) if _has_failed(answer) else None)
    page.goto(address)
    yield page
    page.close()
    assert away == []
    assert failed == []


def _has_failed(answer):
    """But for who is logged in: a server without authentication does not know."""
    return answer.status >= 400 and not answer.url.endswith("/users/current")


def _stays(url):
    return re.match(r"(https?://127\.0\.0\.1[:/]|data:|blob:|about:)", url) is not None


def in_order(text, parts):
    """Whether the parts stand in the text one after the other."""
    at = 0
    for part in parts:
        at = text.find(part, at)
        if at < 0:
            return False
    return True


def address_of(server, key, *, charts):
    from mvit.parent.tracking.dashboard import path_of
    from mvit.parent.tracking.store import connect

    experiment = connect(server).get_experiment_by_name("mvit")
    assert experiment
    path = path_of(experiment.experiment_id, key)
    return server + (path if charts else path.replace("&compareRunsMode=CHART", ""))


@pytest.mark.parametrize("key", ["results", "sweep", "efficiency"])
def test_a_view_shows_its_sections_and_charts(browser, server, key):
    view = read_views()[key]
    with opened(browser, address_of(server, key, charts=True)) as page:
        page.get_by_text(view.sections[-1].name, exact=True).first.wait_for(timeout=SHOWN_WITHIN_MS)
        text = " ".join(page.inner_text("body").split())
        assert in_order(text, [f"{section.name} ({len(section.charts)})" for section in view.sections])
        for section in view.sections:
            for chart in section.charts:
                if isinstance(chart, Line | Bar):
                    assert chart.metric in text
        assert "Error" not in text
        if SCREENSHOTS:
            page.set_viewport_size({"width": 1800, "height": 1100})
            page.get_by_role("button", name="Close").last.click()  # the assistant
            page.wait_for_timeout(DRAWN_WITHIN_MS)
            page.screenshot(path=f"{SCREENSHOTS}/dashboard-{key}.png")


def columns_of(page, wanted):
    """Those of these columns that the table shows, from left to right: the document has them in another order."""
    script = "cells => cells.map(cell => [cell.getBoundingClientRect().x, cell.innerText.trim()])"
    placed = page.locator("[role=columnheader]").evaluate_all(script)
    return list(dict.fromkeys(heading for _, heading in sorted(placed) if heading in wanted))


@pytest.mark.parametrize(
    ("key", "kinds"),
    [("results", ["train", "sweep", "evaluate"]), ("sweep", ["trial", "trial"]), ("efficiency", 4 * [""])],
)
def test_a_view_shows_its_runs_in_its_columns_and_order(browser, server, key, kinds):
    view = read_views()[key]
    with opened(browser, address_of(server, key, charts=False)) as page:
        page.locator("[role=columnheader]", has_text="Run Name").first.wait_for(timeout=SHOWN_WITHIN_MS)
        page.locator("[role=row] a[href*='/runs/']").first.wait_for(timeout=SHOWN_WITHIN_MS)
        wanted = [column.partition(".")[2] for column in view.columns]
        deadline = time.monotonic() + COLUMNS_WITHIN_S  # they are put in order once the runs are there
        while (shown := columns_of(page, wanted)) != wanted and time.monotonic() < deadline:
            page.wait_for_timeout(200)
        assert shown == wanted
        names = page.locator("[role=row] a[href*='/runs/']").all_inner_texts()
        assert len({name for name in names if name.strip()}) == len(kinds), names


def test_a_page_of_results_opens_from_a_disk_and_is_sorted_by_a_click(browser, tmp_path):
    rows = [{"name": name, "acc": acc} for name, acc in (("甲", "9.5"), ("b", "98.5"), ("c", "-"))]
    (tmp_path / "page.html").write_text(page("Results", Grid(("name", "acc"), rows, ("acc",))), encoding="utf-8")
    opened_page, asked = browser.new_page(), []
    opened_page.on("request", lambda sent: asked.append(sent.url))
    opened_page.goto(f"file://{tmp_path}/page.html")
    names = opened_page.locator("tbody td:first-child")
    assert names.all_inner_texts() == ["甲", "b", "c"]
    opened_page.get_by_text("acc", exact=True).click()
    assert names.all_inner_texts() == ["b", "甲", "c"]
    opened_page.get_by_text("acc", exact=True).click()
    assert names.all_inner_texts() == ["甲", "b", "c"]
    opened_page.close()
    assert asked == [f"file://{tmp_path}/page.html"]


def test_the_command_of_the_readme_prints_the_address_of_the_results(store):
    """`python -m mvit ui`, until it says where."""
    process = subprocess.Popen(
        [sys.executable, "-m", "mvit", "ui"],
        cwd=CHECKOUT,
        env={**os.environ, "MLFLOW_TRACKING_URI": store},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout
        line = process.stdout.readline()
    finally:
        process.terminate()
        process.communicate(timeout=30)
    assert re.match(r"mvit: http://127\.0\.0\.1:\d+/#/experiments/1/runs\?.*viewStateShareKey=results", line)
