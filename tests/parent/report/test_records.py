"""Runs as lists and tables show them, whatever state they are in."""

import csv
import dataclasses
import io
import json

import pytest

from mvit.cli.main import main
from mvit.errors import ConfigError
from mvit.parent.report.difference import differences
from mvit.parent.report.grid import Grid
from mvit.parent.report.listing import listing, next_step
from mvit.parent.report.record import flat, read_records
from mvit.parent.report.results import Job, jobs_of, results
from mvit.parent.report.where import parse_where
from mvit.rundir.ending import record_end
from mvit.rundir.result import PredictResult, write_result


def test_every_state_is_listed_the_newest_last(every):
    lines = list(listing(list(read_records([every])), with_trials=False).lines())
    assert [line.split()[:2] for line in lines[1:]] == [
        ["aaaa", "FINISHED"],
        ["bbbb", "FAILED"],
        ["cccc", "FROZEN"],
        ["dddd", "FROZEN"],
        ["eeee", "FROZEN"],
        ["ffff", "FINISHED"],
    ]
    assert lines[1].split()[2:] == ["2026-11-29", "10:00", "digits", "97.50", "640"]
    assert lines[2].endswith("nan: the loss is not finite")
    assert lines[4].endswith("run.json is damaged")
    assert lines[5].endswith("made by another version of mvit")
    assert lines[6].endswith("99.50         2 trials: 2 FINISHED")


def test_the_list_leads_to_what_the_newest_run_needs(every):
    records = list(read_records([every]))
    assert next_step(records) == "execute what is frozen with: python -m mvit run cccc"
    stopped = [dataclasses.replace(one, status="KILLED") if one.id == "aaaa" else one for one in records]
    assert next_step(stopped) == "continue what was stopped with: python -m mvit resume aaaa"
    assert next_step(records[:2]) == "once the cause is fixed, continue with: python -m mvit resume bbbb"
    assert next_step(records[:1]) == "show the results with: python -m mvit table"
    assert next_step([]) is None


def test_the_trials_of_a_sweep_are_listed_below_it(every):
    lines = list(listing(list(read_records([every])), with_trials=True).lines())
    assert [line.split()[0] for line in lines[6:]] == ["ffff", "0-ab00", "1-ab10"]
    assert lines[7].split()[4] == "lr=3e-3"


def test_a_run_without_a_result_is_no_result(every):
    rows = results(jobs_of(list(read_records([every])))).rows
    assert [row["run"] for row in rows] == ["1-ab10", "0-ab00", "aaaa"]


def test_what_was_paused_or_never_evaluated_is_listed_and_is_no_result(made, tmp_path):
    paused, barely = made("猫/20261129-100000-aaaa"), made("猫/20261129-100100-bbbb")
    line = {"time": 0, "epoch": 1, "step": 1, "metrics": {"train/loss": 2.0}}
    paused.folder.journal.write_text(json.dumps({**line, "metrics": {"val/acc1": 55.5}}) + "\n")
    barely.folder.journal.write_text(json.dumps(line) + "\n")
    record_end(paused.folder, "PAUSED", exit_code=75)
    record_end(barely.folder, "KILLED", exit_code=130)
    records = list(read_records([tmp_path]))
    rows = [
        [row.get(key) for key in ("id", "status", "name", "acc@1")] for row in listing(records, with_trials=True).rows
    ]
    assert rows == [["aaaa", "PAUSED", "猫", "55.50"], ["bbbb", "KILLED", "猫", ""]]
    assert jobs_of(records) == []


def test_a_prediction_is_listed_without_an_accuracy(made, tmp_path):
    for name in ("aaaa", "bbbb"):
        folder = made(f"digits/20261129-100000-{name}", acc=97.0).folder
        metrics = {"predict/images": 3.0}
        write_result(
            folder, PredictResult(task="predict", metrics=metrics, graphs={}, count=3, unreadable=0, weights="raw")
        )
    records = list(read_records([tmp_path]))
    assert [record.metrics for record in records] == [metrics, metrics]
    assert [row["acc@1"] for row in listing(records, with_trials=True).rows] == ["", ""]
    assert [fact for fact in differences(*records) if fact.section == "result"] == []


def test_seeds_are_one_row_with_mean_and_deviation_and_a_seed_counts_once(made, tmp_path):
    for number, (seed, accuracy) in enumerate([(1, 50.0), (1, 97.0), (2, 98.0), (3, 99.0)]):
        made(f"digits/2026112{number}-100000-000{number}", f"seed={seed}", acc=accuracy)
    made("digits/20261129-100000-0009", "model=x_small", acc=90.0)
    first, second = results(jobs_of(list(read_records([tmp_path])))).rows
    assert (first["n"], first["acc@top1"], first["std"], first["run"]) == ("3", "98.00", "1.00", "0001, 0002, 0003")
    assert (second["n"], second["model name"], second["std"]) == ("1", "x_small", "-")


def test_a_row_has_the_accuracy_of_the_same_weights_for_all_its_seeds(averaged, admissible, tmp_path):
    admissible("0009", "model=x_small", acc=85.0)
    averages, other = jobs_of(list(read_records([tmp_path])))
    assert [averages.row()[key] for key in ("acc@top1", "std", "n")] == ["91.10", "0.10", "3"]
    assert (averages.accuracies, averages.accuracy) == ([91.0, 91.2, 91.1], pytest.approx(91.1))
    assert other.accuracy == 85.0, "below, though better than the mean of the raw weights"


def test_an_average_that_is_worse_in_the_mean_is_of_no_seed(admissible, tmp_path):
    for seed, (acc, ema) in enumerate([(90.0, 91.0), (90.5, 80.0)], 1):
        admissible(f"000{seed}", f"seed={seed}", acc=acc, ema=ema)
    (job,) = jobs_of(list(read_records([tmp_path])))
    assert (job.accuracies, job.row()["acc@top1"]) == ([90.0, 90.5], "90.25")


def test_a_fork_is_no_run_of_the_job_that_begins_at_its_first_step(admissible, tmp_path):
    admissible("0001", "seed=1", acc=97.0)
    admissible("0002", "seed=1", acc=98.0, fork=True)
    jobs = jobs_of(list(read_records([tmp_path])))
    assert [(job.accuracy, job.names, job.verdict) for job in jobs] == [(98.0, "0002", "no"), (97.0, "0001", "yes")]


def test_a_compilation_is_not_averaged_with_graphs_that_were_loaded(every):
    record = next(iter(read_records([every])))
    metrics = [
        {"perf/compile_s": seconds, "perf/compile_cached": cached} for seconds, cached in ((4.0, 0.0), (0.5, 1.0))
    ]
    cold, warm = (dataclasses.replace(record, metrics=one) for one in metrics)
    assert Job([cold, warm]).metrics == metrics[0]
    assert Job([warm, warm]).metrics == metrics[1]


@pytest.mark.parametrize(
    ("where", "ids"),
    [
        ("val/acc1>98", ["1-ab10"]),
        ("val/acc1>=98 and optimizer.lr<0.004", ["0-ab00"]),
        ("status=FAILED or status = FROZEN and model=xx_small", ["bbbb", "cccc"]),
        ("model!=xx_small", ["bbbb"]),
        ("data=digits and seed=1 and sweep=ffff", ["0-ab00", "1-ab10"]),
        ("optimizer='adamw' and started>2026-11-29\u00a010:01", []),
        ("started>'2026-11-29 10:01' and status=FROZEN", ["cccc", "dddd", "eeee"]),
        ("train.ema_momentum=0.5", []),
        ("cards=1 and params>1e5 and val/acc1!=97", ["0-ab00", "1-ab10"]),
    ],
)
def test_filters(every, where, ids):
    assert [record.id for record in parse_where(where).select(read_records([every]))] == ids


@pytest.mark.parametrize(
    ("where", "line"),
    [
        ("", "--where: '' cannot be read from '' on; write it as 'val/acc1>98 and model=xx_small'"),
        ("val/acc1", "cannot be read from 'val/acc1' on"),
        ("val/acc1>98 and", "cannot be read from '' on"),
        ("val/acc1>98 model=small", "cannot be read from 'model=small' on"),
        ("val/acc>98", "'val/acc' is nothing that these runs have; did you mean val/acc5, val/acc1"),
    ],
)
def test_a_wrong_filter_is_one_line(every, where, line):
    with pytest.raises(ConfigError) as refused:
        parse_where(where).select(read_records([every]))
    assert line in str(refused.value)


def test_commands_print_what_programs_read(every, capsys):
    assert main(["table", str(every), "--format", "json", "--where", "optimizer.lr=0.004"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["acc@top1"], row["run"], row["n"]) == ("99.00", "1-ab10", "1")
    assert main(["ls", str(every), "--format", "csv"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [row["id"] for row in rows] == ["aaaa", "bbbb", "cccc", "dddd", "eeee", "ffff"]
    assert main(["table", str(every), "--where", "val/acc1>99.9"]) == 0
    assert capsys.readouterr() == ("", "mvit: no run with a result\n")
    assert main(["ls", str(every / "nowhere")]) == 2


def test_a_grid_that_is_too_wide_loses_columns_and_then_the_ends_of_words():
    rows = [{"a": "x" * 30, "b": "1.5", "c": "yyyy"}]
    grid = Grid(("a", "b", "c"), rows, ("b",), may_go=("c",))
    assert list(grid.fitted(41).lines()) == ["a                                 b  c", f"{'x' * 30}  1.5  yyyy"]
    assert list(grid.fitted(35).lines())[1] == f"{'x' * 30}  1.5"
    assert list(grid.fitted(20).lines())[1] == f"{'x' * 14}…  1.5"


def test_markdown_escapes_what_would_end_a_cell_and_aligns_wide_characters():
    grid = Grid(("name", "n"), [{"name": "a|b", "n": "1"}, {"name": "猫"}], ("n",))
    assert grid.markdown().splitlines() == ["| name |   n |", "| ---- | --: |", "| a\\|b |   1 |", "| 猫   |     |"]


def test_a_section_stands_for_its_kind():
    assert flat({"a": {"kind": "b", "c": [1]}, "d": None}) == {"a": "b", "a.kind": "b", "a.c": "[1]", "d": None}
