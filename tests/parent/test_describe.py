"""What the plan says to a person."""

import pytest

from mvit.data import dataset
from mvit.parent import describe as module
from mvit.parent.describe import describe
from mvit.parent.host import this_host
from mvit.parent.plan import make_plan
from mvit.parent.report.estimate import past_runs
from mvit.parent.request.check import parse
from mvit.parent.request.compose import compose


@pytest.mark.parametrize(
    ("level", "installed", "says"),
    [
        ("O1", "2.10.0", "jit level O1: MindSpore fuses operators"),
        ("O2", "2.5.0", "jit level O2: CANN's graph engine compiles the whole graph"),
        (
            "O2",
            "2.10.0",
            "jit level O2: CANN's graph engine compiles the whole graph;"
            " deprecated since MindSpore 2.9, and 2.10.0 is installed: O1 takes its place",
        ),
    ],
)
def test_the_plan_says_what_the_level_means_on_this_mindspore(tmp_path, monkeypatch, level, installed, says):
    monkeypatch.setattr(module, "version", lambda _: installed)
    config = parse(compose(["topology=ascend_8", f"topology.jit_level={level}", "data=synthetic", "dry_run=true"]))
    plan = make_plan(config, host=this_host(), facts=dataset.survey(config.data).facts)
    lines = dict(describe(config, plan, past=past_runs(config, plan, tmp_path)))
    assert lines["precision"].endswith(f", {says}")
