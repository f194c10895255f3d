"""Results as they are printed: complete as data, and never wider than 100 columns."""

import io

import pytest
from rich.console import Console

from mvit import console
from mvit.data import dataset
from mvit.parent.host import this_host
from mvit.parent.plan import make_plan
from mvit.parent.report.row import result_row
from mvit.parent.report.table import WIDTH, TrialResult, result_lines, sweep_lines
from mvit.rundir.checkpoints import Checkpoint, set_tag
from mvit.rundir.frozen import Run
from mvit.rundir.paths import create_run_dir
from mvit.rundir.result import EvaluateResult, TrainResult

PUBLISHED = [
    "model name",
    "params(M)",
    "cards",
    "batch size",
    "resolution",
    "jit level",
    "graph compile",
    "ms/step",
    "img/s",
    "acc@top1",
    "acc@top5",
    "recipe",
    "weights",
]
METRICS = {
    "val/acc1": 91.386,
    "val/acc5": 99.1,
    "best/val_acc1": 92.5,
    "best/epoch": 3.0,
    "perf/compile_s": 12.34,
    "perf/step_ms": 98.76,
    "perf/images_per_s": 324.02,
}
LONGEST = {
    "model name": "a_model_with_a_name_of_its_own_" * 4,
    "params(M)": "1234.56",
    "cards": "16 Ascend",
    "global batch": "2048/1536/1024/768/512",
    "batch size": "256/192/128/96/64",
    "resolution": "160x160/192x192/224x224/256x256/288x288",
    "jit level": "O2",
    "graph compile": "12345.6s",
    "ms/step": "12345.67",
    "img/s": "123456.78",
    "load": "128.0 cores",
    "acc@top1": "100.00",
    "best acc@top1": "100.00",
    "acc@top5": "100.00",
    "recipe": "a_recipe_with_a_name_of_its_own_" * 3,
    "weights": "imported_weights_" * 12 + ".safetensors (EMA)",
}


@pytest.fixture
def finished(configured, tmp_path):
    """The row of a run that ended with `METRICS`."""

    def make(*overrides, result=None):
        config = configured(*overrides)
        plan = make_plan(config, host=this_host(), facts=dataset.survey(config.data).facts)
        run = Run(create_run_dir(tmp_path / config.name), config, plan)
        set_tag(run.folder.checkpoints, "last", Checkpoint(run.folder.checkpoints, 440))
        trained = TrainResult(task="train", steps=440, metrics=METRICS, graphs={}, compiled=1)
        return result_row(run, result or trained)

    return make


def printed(pairs, monkeypatch):
    out = io.StringIO()
    monkeypatch.setattr(console, "console", Console(file=out, highlight=False, soft_wrap=True))
    console.pairs(pairs)
    return out.getvalue().splitlines()


def test_a_row_has_every_column_of_the_published_table(finished):
    row = finished("topology=cpu_2", "train.accumulation=2")
    assert [name for name in row if name in PUBLISHED] == PUBLISHED
    assert (row["global batch"], row["batch size"]) == ("32", "8")
    assert (row["acc@top1"], row["best acc@top1"]) == ("91.39", "92.50")
    assert row["weights"] == "step-00000440.safetensors"


def test_a_run_is_printed_as_pairs(finished, monkeypatch):
    assert printed(result_lines(finished("topology=cpu_2")), monkeypatch) == [
        "  model         xx_small, 0.95 M parameters",
        "  recipe        xx_small-digits",
        "  devices       2 CPU",
        "  batch         32 global, 16 per device",
        "  resolution    64x64",
        "  compile       12.3s",
        "  speed         324.02 img/s, 98.76 ms/step",
        "  acc@1         91.39 % last, 92.50 % best",
        "  acc@5         99.10 %",
        "  weights       step-00000440.safetensors",
    ]


def test_a_speed_that_was_measured_beside_others_says_so(finished):
    row = finished()
    assert row["load"] == "-"
    assert dict(result_lines({**row, "load": "0.2 cores"}))["speed"] == "324.02 img/s, 98.76 ms/step"
    loaded = dict(result_lines({**row, "load": "0.9 cores"}))["speed"]
    assert loaded == "324.02 img/s, 98.76 ms/step, while other processes used 0.9 cores"


def test_an_evaluation_has_one_accuracy_and_no_speed(finished, monkeypatch):
    metrics = {"val/acc1": 91.386, "val/acc5": 99.1, "perf/compile_eval_s": 3.0}
    counts = {"correct1": 329, "correct5": 357, "count": 360}
    result = EvaluateResult(task="evaluate", metrics=metrics, graphs={}, weights="ema", **counts)
    row = finished("task=evaluate", "task.checkpoint=weights.safetensors", "topology=cpu_2", result=result)
    lines = printed(result_lines(row), monkeypatch)
    assert "  acc@1         91.39 %" in lines
    assert "  batch         120 global, 60 per device" in lines
    assert "  weights       weights.safetensors (EMA)" in lines
    assert not any(line.startswith("  speed") for line in lines)


def trial(number, row, *overrides):
    return TrialResult(f"{number:02d}-20261123-132054-f02{number}", overrides, row)


def test_a_sweep_is_a_table_of_what_differs(finished):
    rows = [finished("model=xx_small", "name=mine"), finished("model=x_small", "name=mine-2")]
    rows[1] = {**rows[1], "recipe": "mine"}
    fast = {**rows[1], "acc@top1": "98.61", "img/s": "123.40"}
    results = [
        trial(0, rows[0], "model=xx_small", "optimizer.lr=0.001", "train.epochs=2"),
        trial(1, fast, "model=x_small", "optimizer.lr=0.002", "train.epochs=2"),
    ]
    assert list(sweep_lines(results)) == [
        "all trials: recipe mine, devices 1 CPU, batch 32, per device 32, resolution 64x64",
        "| trial   | model    | lr    | acc@1 |  best | acc@5 |  img/s | ms/step | compile |",
        "| ------- | -------- | ----- | ----: | ----: | ----: | -----: | ------: | ------: |",
        "| 00-f020 | xx_small | 0.001 | 91.39 | 92.50 | 99.10 | 324.02 |   98.76 |   12.3s |",
        "| 01-f021 | x_small  | 0.002 | 98.61 | 92.50 | 99.10 | 123.40 |   98.76 |   12.3s |",
    ]


def test_keys_with_the_same_last_part_are_told_apart(finished):
    row = finished()
    results = [
        trial(0, row, "optimizer.lr=0.001", "other.lr=1", "train.best=1"),
        trial(1, row, "++optimizer.lr=0.002", "+other.lr=2", "train.best=2"),
    ]
    headings = next(line for line in sweep_lines(results) if line.startswith("| trial"))
    assert "| optimizer.lr | other.lr | train.best |" in headings


def test_a_trial_without_an_override_or_a_number_has_a_dash(finished):
    row = finished()
    results = [trial(0, row, "seed=1"), trial(1, {**row, "acc@top5": "-"})]
    last = list(sweep_lines(results))[-1]
    assert last.startswith("| 01-f021 | -    |")
    assert "|     - |" in last


def test_the_longest_values_fit(monkeypatch):
    assert all(len(line) <= WIDTH for line in printed(result_lines(LONGEST), monkeypatch))
    other = {name: f"{value[:-1]}x" for name, value in LONGEST.items()}
    overrides = [f"a_section.and_a_key_of_some_length_{number}={'value' * 9}" for number in range(9)]
    for rows, words in (
        ((LONGEST, LONGEST), ((), ())),
        ((LONGEST, other), ((), ())),
        ((LONGEST, LONGEST), (overrides, [f"{override}x" for override in overrides])),
        ((LONGEST, other), (overrides, [f"{override}x" for override in overrides])),
    ):
        lines = list(sweep_lines([trial(i, row, *o) for i, (row, o) in enumerate(zip(rows, words, strict=True))]))
        assert max(map(len, lines)) <= WIDTH, lines
        heading = next(line for line in lines if line.startswith("| trial"))
        assert "|  acc@1 |" in heading
        assert "|   best |" in heading


def test_a_wide_table_keeps_the_ends_of_its_words(finished):
    row = finished()
    values = [f"experiments/{'mindcv_to_cvnets_' * 5}{end}" for end in ("batch", "schedule")]
    lines = list(sweep_lines([trial(i, row, f"experiment={value}") for i, value in enumerate(values)]))
    assert max(map(len, lines)) == WIDTH
    assert "batch |" in lines[-2]
    assert "schedule |" in lines[-1]
    assert "compile |" in lines[-4]
