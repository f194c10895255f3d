"""The everyday jobs on one training: evaluate, predict, export, and the exported network without mvit."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mvit.config import DigitsData
from mvit.rundir.answers import read_answers
from mvit.rundir.exported import read_about
from mvit.rundir.paths import RunDir
from mvit.rundir.predictions import read_predictions
from tests.conftest import CHECKOUT, TINY, open_data, raw_config

pytestmark = pytest.mark.mindspore

BROKEN = {"empty.png": b"", "text.jpg": b"no image", "zeros.png": bytes(100), "page.webp": b"<html>"}


@pytest.fixture(scope="module")
def launched(request):
    """A function that launches without MLflow, and the run that the others start from."""
    from tests.conftest import launcher

    start = launcher(request.getfixturevalue("tmp_path_factory"))
    trained = start(*TINY, "train.epochs=2", "tracking=none")
    assert trained.code == 0, trained.err + trained.out
    return start, trained


@pytest.fixture(scope="module")
def digits(request, launched) -> Path:
    """The 360 digits of the validation set as files, in order."""
    folder = request.getfixturevalue("tmp_path_factory").mktemp("digits")
    _, source = open_data(DigitsData(**raw_config()["data"]))
    for index in range(len(source.labels)):
        source.sample(index).open().save(folder / f"{index:03d}.png")
    return folder


@pytest.fixture(scope="module")
def exported(launched):
    start, trained = launched
    done = start("task=export", f"task.checkpoint={trained.folder}", "tracking=none")
    assert done.code == 0, done.err + done.out
    return done


def test_an_evaluation_equals_the_last_one_of_the_training(launched):
    start, trained = launched
    done = start("task=evaluate", f"task.checkpoint={trained.folder}", "tracking=none")
    assert done.code == 0, done.err + done.out
    best = read_predictions(trained.folder / "predictions.npz")
    assert np.array_equal(read_predictions(done.folder / "predictions.npz").logits, best.logits)
    assert done.result()["metrics"]["val/acc1"] == trained.result()["metrics"]["best/val_acc1"]


def test_a_prediction_is_that_of_the_evaluation_and_broken_files_are_reported(launched, digits, tmp_path):
    start, trained = launched
    for name, content in BROKEN.items():
        (tmp_path / name).write_bytes(content)
    torn = (digits / "000.png").read_bytes()
    (tmp_path / "torn.png").write_bytes(torn[: len(torn) // 2])
    output = tmp_path / "answers.csv"
    images = f"data.images=[{digits}/*.png,{tmp_path}]"
    done = start("task=predict", f"task.checkpoint={trained.folder}", images, f"task.output={output}", "tracking=none")
    assert done.code == 0, done.err + done.out
    assert f"mvit: 360 images predicted, 5 unreadable: {output}" in done.out
    assert {Path(line.split(": ")[1]).name for line in done.err.splitlines()} == {*BROKEN, "torn.png"}

    answers = list(read_answers(RunDir(done.folder)))
    logits = read_predictions(trained.folder / "predictions.npz").logits.astype(np.float64)
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    assert [Path(answer.image) for answer in answers[:360]] == sorted(digits.iterdir())
    for answer, row in zip(answers, probabilities, strict=False):
        assert [guess.index for guess in answer.classes] == np.argsort(-row, kind="stable")[:5].tolist()
        assert answer.classes[0].probability == pytest.approx(row.max(), rel=1e-4)
    with output.open() as file:
        rows = list(csv.DictReader(file))
    assert [row["class_1"] for row in rows[:360]] == [answer.classes[0].name for answer in answers[:360]]
    assert [bool(row["error"]) for row in rows] == [False] * 360 + [True] * 5


def test_a_strict_prediction_answers_all_and_fails_for_paths_of_standard_input_too(launched, digits, tmp_path):
    _, trained = launched
    command = [sys.executable, str(CHECKOUT / "launch.py"), f"runs_dir={tmp_path}/runs", "tracking=none"]
    command += ["task=predict", f"task.checkpoint={trained.folder}", "data.images=-", "task.strict=true", "task.top=1"]
    paths = f"{digits}/000.png\n{digits}/001.png\n{tmp_path}/missing.png\n"
    done = subprocess.run(command, input=paths, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 1, done.stderr + done.stdout
    assert "1 of 3 images cannot be read (task.strict=true)" in done.stderr
    (file,) = tmp_path.glob("runs/*/*/answers.jsonl")
    answers = [json.loads(line) for line in file.read_text().splitlines()]
    assert [len(answer.get("classes", ())) for answer in answers] == [1, 1, 0]
    assert "No such file" in answers[2]["error"]


def test_exported_networks_compute_what_the_checkpoint_does(exported):
    metrics = exported.result()["metrics"]
    assert exported.result()["count"] == 360
    for form in ("mindir", "onnx"):
        assert metrics[f"export/{form}_max_diff"] <= 1e-4
        assert metrics[f"export/{form}_same_top1_pct"] == 100.0


@pytest.mark.parametrize(("name", "more"), [("model.onnx", ("topology=cpu_2",)), ("model.mindir", ())])
def test_an_exported_network_is_evaluated_as_its_checkpoint(exported, launched, name, more):
    start, trained = launched
    done = start("task=evaluate", f"task.checkpoint={exported.folder}/exported/{name}", *more, "tracking=none")
    assert done.code == 0, done.err + done.out
    best = read_predictions(trained.folder / "predictions.npz")
    ours = read_predictions(done.folder / "predictions.npz")
    assert np.array_equal(ours.labels, best.labels)
    assert np.abs(ours.logits - best.logits).max() <= 1e-4
    result, metrics = done.result(), trained.result()["metrics"]
    assert (result["count"], result["weights"], result["graphs"]) == (360, "exported", {})
    assert result["metrics"]["val/acc1"] == metrics["best/val_acc1"]
    assert "kernels       plain (an exported network brings its own)" in done.out


def test_the_consumer_of_the_manual_needs_neither_mvit_nor_mindspore(exported, launched, digits):
    program = CHECKOUT / "docs/classify.py"
    source = program.read_text()
    assert f"```python\n{source}```" in (CHECKOUT / "docs/guides/export.md").read_text()
    body = source.partition("\n\n")[2].splitlines()
    assert len([line for line in body if line and " import " not in f" {line}"]) <= 10
    assert "mvit" not in source
    assert "mindspore" not in source
    folder = exported.folder / "exported"
    command = [sys.executable, str(program), str(folder), str(digits / "007.png")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, check=False)
    assert done.returncode == 0, done.stderr
    logits = read_predictions(launched[1].folder / "predictions.npz").logits[7]
    assert done.stdout.split()[0] == read_about(folder).class_names[int(logits.argmax())]
    assert float(done.stdout.split()[1]) == pytest.approx(np.exp(logits).max() / np.exp(logits).sum(), abs=1e-4)


@pytest.mark.long
@pytest.mark.parametrize(
    ("more", "tolerance"),
    [
        pytest.param("data.image_size=96", 1e-4, id="resized feature maps"),
        pytest.param("precision=O1", 5e-2, id="half precision"),
    ],
)
def test_networks_of_every_size_and_precision_are_exported(launched, more, tolerance):
    start, trained = launched
    limit = f"task.tolerance={tolerance}"
    done = start("task=export", f"task.checkpoint={trained.folder}", more, limit, "tracking=none")
    assert done.code == 0, done.err + done.out
    assert max(done.result()["metrics"][f"export/{form}_max_diff"] for form in ("mindir", "onnx")) <= tolerance


def test_an_export_that_is_too_far_from_its_checkpoint_fails(launched):
    start, trained = launched
    fixed = ("task.formats=[onnx]", "task.dynamic_batch=false", "task.batch_size=90", "task.tolerance=1e-12")
    done = start("task=export", f"task.checkpoint={trained.folder}", *fixed, "tracking=none")
    assert done.code == 1
    assert "the logits of model.onnx differ by " in done.err


SMALL = ("task.image_sizes=[32]", "task.batch_sizes=[2]", "task.warmup_steps=1", "task.repeats=4")


def test_a_benchmark_measures_every_shape_on_all_workers(launched):
    start, _ = launched
    done = start("task=benchmark", *TINY, *SMALL, "model.num_classes=10", "topology=cpu_2", "tracking=none")
    assert done.code == 0, done.err + done.out
    shapes = {shape["graph"]: shape for shape in done.result()["shapes"]}
    assert list(shapes) == ["train_2x32", "inference_2x32"]
    metrics = done.result()["metrics"]
    for name, shape in shapes.items():
        assert len(shape["step_ms"]) == 4
        median = np.median(shape["step_ms"])
        assert shape["images"] == 4
        assert metrics[f"benchmark/{name}/step_ms"] == pytest.approx(median)
        assert metrics[f"benchmark/{name}/images_per_s"] == pytest.approx(4e3 / median)
        assert metrics[f"benchmark/{name}/loss"] > 0.1
        row = next(line for line in done.out.splitlines() if f"{median:.2f}" in line and "2 CPU" in line)
        assert row.split()[0] == "tiny"
    assert "no speed of tiny has been published" in done.out


def test_a_profile_has_a_table_and_a_trace_of_each_mode(launched):
    start, _ = launched
    overrides = ("task.image_size=32", "task.batch_size=2", "task.warmup_steps=1", "task.steps=2", "tracking=none")
    done = start("task=profile", *TINY, *overrides, "model.num_classes=10")
    assert done.code == 0, done.err + done.out
    assert "https://ui.perfetto.dev" in done.out
    for profile in done.result()["profiles"]:
        mode = profile["mode"]
        with (done.folder / "profile" / f"{mode}-operators.csv").open() as file:
            rows = list(csv.DictReader(file))
        operators = {row["operator"] for row in rows}
        assert {"MatMul", "adamw", "conv_norm_grad"} <= operators if mode == "train" else "conv_norm_eval" in operators
        assert "Custom" not in operators
        in_operators = sum(float(row["ms per step"]) for row in rows)
        assert 0 < in_operators < profile["step_ms"]
        assert sum(one["ms"] for one in profile["operators"]) == pytest.approx(in_operators, rel=1e-2)
        events = json.loads((done.folder / "profile" / f"{mode}-trace.json").read_text())
        calls = [event for event in events if event["ph"] == "X" and event["name"] in operators]
        assert len(calls) == round(2 * sum(float(row["calls per step"]) for row in rows))
        assert all(event["ts"] >= 0 and event["dur"] >= 0 for event in calls)
        assert f"/{done.folder.name}/profile/{mode}-trace.json" in done.out
        first = profile["operators"][0]
        assert done.result()["metrics"][f"profile/{mode}/{first['operator']}_pct"] == first["share_pct"]
