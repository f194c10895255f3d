"""Pictures of a run: drawn from whatever its folder has."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from mvit.data.sample import Array
from mvit.files import write_json
from mvit.parent.report import pictures
from mvit.parent.report.pictures import draw_all
from mvit.plan import DatasetFacts, LaunchPlan
from mvit.rundir.frozen import Run
from mvit.rundir.paths import create_run_dir
from mvit.rundir.predictions import Predictions, write_predictions

pytestmark = pytest.mark.mlflow  # matplotlib takes as long to load


@pytest.fixture
def run(configured, tmp_path):
    """Makes a run of so many classes, with these lines in its journal."""

    def make(lines=(), *, classes=3):
        names = tuple(f"$k {index} 猫" for index in range(classes))
        data = DatasetFacts(num_train=9, num_val=9, class_names=names, fingerprint="f" * 64, skipped=())
        folder = create_run_dir(tmp_path / "run")
        folder.journal.write_text("".join(json.dumps(line) + "\n" for line in lines))
        counts = [[0] * classes for _ in range(classes)]
        for index in range(classes):
            counts[index][index], counts[index][0] = 5, counts[index][0] + index
        write_json(folder.confusion, {"counts": counts})
        return Run(folder, configured(), LaunchPlan.model_construct(dataset=data))

    return make


def drawn(run):
    draw_all(run)
    for file in run.folder.path.glob("*.png"):
        assert file.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    return {file.stem for file in run.folder.path.glob("*.png")}


def line(step, time, **metrics):
    return {
        "step": step,
        "epoch": 1,
        "time": time,
        "metrics": {key.replace("_", "/", 1): v for key, v in metrics.items()},
    }


def test_a_run_that_trained_has_all_of_them(run):
    steps = [line(step, step * 0.05, train_loss=2.0 - step / 40, train_lr=0.001) for step in range(1, 31)]
    evaluations = [line(15, 1.0, val_acc1=50.0, val_loss=1.5), line(30, 2.0, val_acc1=90.0, val_loss=0.5)]
    journal = [{"event": "compiled", "graph": "train"}, *steps[:15], evaluations[0], *steps[15:], evaluations[1]]
    every = {"learning_curves", "step_times", "confusion_matrix", "per_class_accuracy"}
    assert drawn(run(journal)) == every


def test_an_evaluation_has_its_classes_alone(run):
    assert drawn(run([line(0, 0.0, val_acc1=90.0)])) == {"confusion_matrix", "per_class_accuracy"}


@pytest.mark.parametrize("classes", [1, 40, 1000])
def test_any_number_of_classes_is_drawn(run, classes):
    assert "per_class_accuracy" in drawn(run(classes=classes))


def test_the_predictions_give_reliability_and_wrong_images(run, monkeypatch):
    made = run(classes=1000)
    logits = np.random.default_rng(0).normal(size=(30, 1000)).astype(np.float32)
    write_predictions(made.folder.predictions, Predictions(logits, np.zeros(30, np.int32)))
    pixels = Array(np.zeros((8, 12, 3), np.uint8), "a picture")
    source = SimpleNamespace(sample=lambda index: pixels)
    monkeypatch.setattr(pictures, "open_splits", lambda *_, **__: (None, source))
    assert drawn(made) == {"confusion_matrix", "per_class_accuracy", "reliability", "wrong_images"}


def test_predictions_without_an_error_have_no_wrong_images(run):
    made = run()
    write_predictions(made.folder.predictions, Predictions(np.eye(3, dtype=np.float32), np.arange(3, dtype=np.int32)))
    assert drawn(made) == {"confusion_matrix", "per_class_accuracy", "reliability"}


def test_a_run_that_was_stopped_early_is_drawn_as_far_as_it_came(run):
    made = run([line(1, 0.1, train_loss=2.0), line(2, 0.2, train_loss=1.9)])
    made.folder.confusion.unlink()
    assert drawn(made) == {"learning_curves"}
