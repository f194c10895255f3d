"""Two runs side by side."""

import json

import pytest

from mvit.cli.main import main
from mvit.data import dataset
from mvit.files import write_json
from mvit.parent.host import this_host
from mvit.parent.plan import make_plan
from mvit.parent.report.difference import BLOCKS, WIDTH, differences, sparkline
from mvit.parent.report.record import run_of
from mvit.rundir.frozen import Run, write_run
from mvit.rundir.paths import create_run_dir
from mvit.rundir.result import TrainResult, write_result


@pytest.fixture
def made(configured, tmp_path):
    def make(name, *overrides, acc, commit="a" * 40, curve=(10.0, 50.0, 90.0)):
        config = configured(*overrides)
        plan = make_plan(config, host=this_host(), facts=dataset.survey(config.data).facts)
        run = Run(create_run_dir(tmp_path / f"20261129-100000-{name}"), config, plan)
        write_run(run)
        write_json(run.folder.provenance, {"commit": commit, "versions": {"mindspore": "2.10.0"}, "time": name})
        lines = [{"step": n, "epoch": n, "time": n, "metrics": {"val/acc1": value}} for n, value in enumerate(curve)]
        run.folder.journal.write_text("".join(json.dumps(line) + "\n" for line in lines))
        metrics = {"val/acc1": acc}
        write_result(run.folder, TrainResult(task="train", steps=1, metrics=metrics, graphs={}, compiled=1))
        return run.folder.path

    return make


def test_what_differs_is_named_and_nothing_else(made):
    first, second = made("aaaa", acc=97.0), made("bbbb", "optimizer.lr=1e-3", acc=98.5, commit="b" * 40)
    found = [(fact.section, fact.name, fact.first, fact.second, fact.difference) for fact in
             differences(run_of(first), run_of(second))]  # fmt: skip
    assert found == [
        ("configuration", "optimizer.lr", "0.002", "0.001", "-0.001"),
        ("code", "commit", "a" * 12, "b" * 12, ""),
        ("result", "val/acc1", "97", "98.5", "+1.5"),
        ("result", "best/val_acc1", "97", "98.5", "+1.5"),
    ]


def test_the_command_shows_the_table_and_the_curves(made, capsys):
    first, second = made("aaaa", acc=97.0), made("bbbb", acc=98.5, curve=(10.0, 30.0, 100.0))
    assert main(["diff", str(first), str(second)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["what", "aaaa", "bbbb", "difference"]
    assert lines[1].split() == ["result", "val/acc1", "97", "98.5", "+1.5"]
    assert lines[3:] == ["val/acc1, 10 to 100", "  aaaa  ▁▄█", "  bbbb  ▁▂█"]
    assert main(["diff", str(first), str(second), "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["difference"] == "+1.5"


def test_runs_that_are_the_same_are_said_to_be(made, capsys):
    first, second = made("aaaa", acc=97.0), made("bbbb", acc=97.0)
    assert main(["diff", str(first), str(second)]) == 0
    assert capsys.readouterr().err == "mvit: they do not differ\n"


def test_a_damaged_run_and_a_sweep_are_refused(made, tmp_path, capsys):
    first, second = made("aaaa", acc=97.0), made("bbbb", acc=97.0)
    (second / "run.json").write_text("{")
    assert main(["diff", str(first), str(second)]) == 2
    assert "run.json is missing or torn" in capsys.readouterr().err
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep" / "ledger.jsonl").touch()
    assert main(["diff", str(first), str(tmp_path / "sweep")]) == 2
    assert "is a sweep; name one of its trials" in capsys.readouterr().err


def test_a_curve_fits_and_keeps_its_ends_on_one_scale():
    assert sparkline([0.0, 1.0], low=0.0, high=1.0) == BLOCKS[0] + BLOCKS[-1]
    assert sparkline([5.0, 5.0], low=5.0, high=5.0) == BLOCKS[0] * 2
    assert len(sparkline([float(n) for n in range(1000)], low=0.0, high=999.0)) == WIDTH
