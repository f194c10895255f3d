"""Published numbers beside ours."""

import pytest

from mvit.parent.report import published
from mvit.parent.report.comparison import compared
from mvit.parent.report.published import read_published
from mvit.parent.report.record import Record
from mvit.parent.report.results import Job
from mvit.plan import LaunchPlan
from mvit.rundir.frozen import Run
from mvit.rundir.paths import RunDir


@pytest.fixture
def job(configured, tmp_path):
    """Makes a job of an experiment on so many cards that came to these metrics."""

    def make(metrics, *, cards=8, device="Ascend"):
        config = configured().model_copy(update={"name": "reproduce_xx_small"})
        plan = LaunchPlan.model_construct(world_size=cards, device=device)
        folder = RunDir(tmp_path / "20261129-100000-abcd")
        return Job([Record(folder, "FINISHED", id="abcd", run=Run(folder, config, plan), metrics=metrics)])

    return make


def rows(*jobs, source="MindCV, configs/mobilevit/README.md"):
    found = [row for row in compared(jobs).rows if row["source"] == source]
    return {row["quantity"]: row for row in found}


def test_without_a_run_the_published_numbers_stand_alone():
    found = rows()
    assert list(found) == ["acc@top1", "acc@top5", "ms/step", "img/s", "img/s a card", "graph compile, s"]
    assert [row["published"] for row in found.values()] == ["67.11", "87.85", "57.34", "8929", "1116", "437"]
    assert {row["measured"] for row in found.values()} == {"-"}
    assert read_published().tolerance.acc_points == 0.3


def test_a_run_is_within_the_tolerance_or_not(job):
    metrics = {"val/acc1": 67.0, "val/acc5": 87.0, "perf/step_ms": 60.0, "perf/images_per_s": 4400.0}
    found = rows(job(metrics, cards=4))
    cells = {name: (row["measured"], row.get("difference"), row.get("within")) for name, row in found.items()}
    assert cells["acc@top1"] == ("67.00", "-0.11", "yes (±0.3)")
    assert cells["acc@top5"] == ("87.00", "-0.85", "no (±0.3)")
    assert cells["ms/step"] == ("60.00", "+4.6 %", "yes (±5)")
    assert cells["img/s"] == ("4400", "-50.7 %", "4 cards, not 8")
    assert cells["img/s a card"] == ("1100", "-1.4 %", "yes (±5)")
    assert cells["graph compile, s"] == ("-", None, None)
    assert found["acc@top1"]["run"] == "abcd"


def test_the_average_is_compared_where_it_is_better(job):
    metrics = {"val/acc1": 60.0, "val/acc5": 80.0, "val/ema_acc1": 67.0, "val/ema_acc5": 87.0}
    found = rows(job(metrics))
    assert (found["acc@top1"]["measured"], found["acc@top5"]["measured"]) == ("67.00", "87.00")
    found = rows(job({**metrics, "val/ema_acc1": 59.0}))
    assert (found["acc@top1"]["measured"], found["acc@top5"]["measured"]) == ("60.00", "80.00")


def test_the_speed_of_another_device_is_not_judged(job):
    found = rows(job({"val/acc1": 67.2, "perf/step_ms": 400.0}, cards=1, device="CPU"))
    assert found["acc@top1"]["within"] == "yes (±0.3)"
    assert found["ms/step"]["within"] == "CPU is another device"


def test_the_file_is_what_it_says(tmp_path):
    (tmp_path / "published.json").write_text("{}")
    with pytest.raises(ValueError, match="units"):
        published.read_published(tmp_path / "published.json")
