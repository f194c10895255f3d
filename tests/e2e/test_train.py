"""Whole launches: real processes, real msrun, real SQLite."""

import json

import numpy as np
import pytest

from mvit.models import spec
from mvit.models.kernels.build import support
from mvit.parent.memory import estimate_memory
from mvit.parent.report.confusion import draw
from mvit.parent.report.past_run import times_of
from mvit.rundir.frozen import read_run
from mvit.rundir.paths import RunDir
from mvit.rundir.predictions import read_predictions
from mvit.rundir.result import read_result
from tests.conftest import TINY
from tests.data.test_dataset import make_folder

pytestmark = pytest.mark.mindspore

METRICS = {
    *("train/loss", "train/lr", "train/grad_norm", "val/loss", "val/acc1", "val/acc5", "val/ece"),
    *("best/val_acc1", "best/epoch", "perf/images_per_s", "perf/step_ms", "perf/data_wait_pct"),
    *("perf/other_load_pct", "system/cpu_utilization_percentage", "system/system_memory_usage_megabytes"),
    *("perf/compile_s", "perf/compile_eval_s", "perf/compile_cached", "perf/first_step_s", "perf/peak_rss_mb"),
    *("perf/compile_type_inference_s", "perf/compile_optimize_s", "perf/compile_task_emit_s"),
}
SMALL = (*TINY, "data=synthetic", "data.image_size=32", "data.num_train=160", "data.num_val=50", "data.classes=7")
SMALL = (*SMALL, "train.epochs=1", "train.global_batch_size=8", "train.eval_batch_size=8", "train.log_every_steps=1")


def client(launched):
    from mlflow import MlflowClient  # seconds, and make check collects this file too

    return MlflowClient(tracking_uri=f"sqlite:///{launched.runs.parent}/mlflow.db")


def mlflow_runs(launched):
    store = client(launched)
    return store.search_runs([experiment.experiment_id for experiment in store.search_experiments()])


@pytest.fixture(scope="module")
def trained(request):
    """One tiny run that every test here looks at."""
    factory = request.getfixturevalue("tmp_path_factory")
    from tests.conftest import launcher

    done = launcher(factory)(*SMALL, "train.epochs=2", "topology.compile_cache=false")  # loading has fewer phases
    assert done.code == 0, done.err + done.out
    return done


def test_a_run_ends_finished_with_its_result_row(trained):
    assert "  model         tiny, " in trained.out
    assert "mvit: FINISHED in " in trained.out
    assert "mvit: MLflow: mlflow.db, experiment mvit, run " in trained.out
    assert trained.err == ""
    assert trained.result()["steps"] == 40


def test_the_memory_that_the_plan_says_is_that_which_the_run_takes(trained):
    run = read_run(RunDir(trained.folder))
    measured = trained.result()["metrics"]["perf/peak_rss_mb"]
    assert estimate_memory(run.config, run.plan).total / 2**20 == pytest.approx(measured, rel=0.25)


def test_the_second_run_can_tell_where_the_time_of_the_first_one_went(trained):
    folder = RunDir(trained.folder)
    result, run = read_result(folder), read_run(folder)
    assert result
    times = times_of(folder, result, eval_steps=2 * run.plan.eval_steps)
    assert times
    assert min(vars(times).values()) > 0
    assert times.start < 60 > times.end


def test_mlflow_holds_every_metric_of_the_design(trained):
    (run,) = mlflow_runs(trained)
    assert run.info.status == "FINISHED"
    assert set(run.data.metrics) == METRICS
    phases = [run.data.metrics[f"perf/compile_{phase}_s"] for phase in ("type_inference", "optimize", "task_emit")]
    assert 0.5 < sum(phases) / run.data.metrics["perf/compile_s"] < 1
    history = client(trained).get_metric_history(run.info.run_id, "train/loss")
    assert [point.step for point in history] == list(range(1, 41))
    assert [point.value for point in history] == trained.losses()


def test_mlflow_holds_params_tags_and_artifacts(trained):
    (run,) = mlflow_runs(trained)
    assert run.data.params["optimizer.lr"] == "0.002"
    assert run.data.params["model.depths"] == "[1, 1, 1]"
    tags = run.data.tags
    assert tags["topology"] == "1 CPU"
    assert tags["folder"] == str(trained.folder)
    assert {"mlflow.user", "mlflow.runName", "mlflow.source.name", "host"} <= set(tags)
    found = {artifact.path for artifact in client(trained).list_artifacts(run.info.run_id)}
    assert {"run.json", "provenance.json", "result.json", "metrics.jsonl", "confusion_matrix.png"} <= found


def test_the_run_folder_is_whole(trained):
    names = {path.name for path in trained.folder.iterdir()}
    assert {"run.json", "provenance.json", "metrics.jsonl", "result.json", "tracking.json"} <= names
    assert {"confusion.json", "predictions.npz", "reliability.png", "wrong_images.png"} <= names
    last, best = (json.loads((trained.folder / f"checkpoints/{tag}.json").read_text()) for tag in ("last", "best"))
    files = {path.stem for path in (trained.folder / "checkpoints").glob("*.safetensors")}
    assert files == {last["file"], best["file"], "step-00000020"}  # the newest two, and the best


def test_the_confusion_matrix_counts_every_sample_once(trained, tmp_path):
    counts = np.array(json.loads((trained.folder / "confusion.json").read_text())["counts"])
    assert counts.sum() == 50
    assert (counts.sum(1) == np.bincount(np.arange(50) % 7)).all()
    draw(counts.tolist(), list("abcdefg"), tmp_path / "x.png")
    assert (tmp_path / "x.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_the_predictions_are_those_that_were_counted(trained):
    found = read_predictions(trained.folder / "predictions.npz")
    assert found.logits.shape == (50, 7)
    assert (found.labels == np.arange(50) % 7).all()
    counts = np.zeros((7, 7), int)
    np.add.at(counts, (found.labels, found.logits.argmax(1)), 1)
    assert counts.tolist() == json.loads((trained.folder / "confusion.json").read_text())["counts"]


def test_a_checkpoint_holds_every_parameter_and_both_moments(trained, configured):
    from safetensors.numpy import load_file

    tensors = load_file(next((trained.folder / "checkpoints").glob("*.safetensors")))
    shapes = spec.parameter_shapes(configured(*SMALL).model, num_classes=7)
    moving = [name for name in shapes if name.endswith(spec.STATISTICS)]
    assert {name: tensors[name].shape for name in shapes} == shapes
    assert set(tensors) - set(shapes) == {
        "optimizer_step",
        *(f"adam_{moment}.{name}" for moment in "mv" for name in shapes if name not in moving),
    }
    assert tensors["optimizer_step"] == 40


@pytest.mark.parametrize("topology", ["cpu", "cpu_2"])
def test_evaluating_the_best_checkpoint_gives_its_accuracy_on_one_and_two_workers(trained, launch, topology):
    checkpoint = f"task.checkpoint={trained.folder}"
    done = launch("task=evaluate", checkpoint, "task.batch_size=8", f"topology={topology}", "tracking=none")
    assert done.code == 0, done.err
    result = done.result()
    best = trained.result()["metrics"]["best/val_acc1"]
    assert result["count"] == 50
    assert 100 * result["correct1"] / result["count"] == pytest.approx(best)
    of_training, of_evaluation = (read_predictions(x.folder / "predictions.npz") for x in (trained, done))
    assert (of_evaluation.labels == of_training.labels).all()
    assert of_evaluation.logits == pytest.approx(of_training.logits, abs=1e-4)


def test_two_workers_and_two_micro_batches_give_the_same_losses(launch):
    recipe = ("data.num_train=320", "model.dropout=0.1", "tracking=none")  # 40 steps
    two = launch(*SMALL, *recipe, "topology=cpu_2")
    # With as many threads: rounding differs otherwise, and 40 steps make a tenth of it.
    accumulated = launch(*SMALL, *recipe, "topology=cpu", "topology.threads=1", "train.accumulation=2")
    assert (two.code, accumulated.code) == (0, 0), two.err + accumulated.err
    assert len(two.losses()) == 40
    assert two.losses() == accumulated.losses()
    assert 0.0 < two.result()["metrics"]["perf/all_reduce_pct"] < 100.0


def test_the_same_seed_gives_the_same_run(trained, launch):
    again = launch(*SMALL, "train.epochs=2", "tracking=none")
    assert again.losses() == trained.losses()


def test_activations_kept_in_bf16_train_as_those_in_fp32(trained, launch):
    done = launch(*SMALL, "train.epochs=2", "tracking=none", "train.activations=bf16")
    assert done.code == 0, done.err
    assert "activations in bf16" in done.out
    assert done.losses() != trained.losses()
    assert done.losses()[:10] == pytest.approx(trained.losses()[:10], rel=0.01)  # later, roundings have grown


def test_half_precision_trains(launch):
    done = launch(*SMALL, "precision=fp16", "tracking=none", "data.num_train=80")
    assert done.code == 0, done.err
    assert np.isfinite(done.losses()).all()


def test_a_loss_that_is_not_finite_fails_the_run_and_names_the_steps(launch):
    done = launch(*SMALL, "optimizer.lr=1e30", "schedule=constant", "schedule.warmup=0")
    assert done.code == 1
    assert "the loss is not finite at step" in done.err
    (run,) = mlflow_runs(done)
    assert run.info.status == "FAILED"
    assert "not finite" in run.data.tags["error"]
    assert any(artifact.path == "logs" for artifact in client(done).list_artifacts(run.info.run_id))


def test_a_folder_with_an_unreadable_image_trains_without_it_when_asked(launch, tmp_path):
    root = make_folder(tmp_path, per_class=9, size=(60, 40))
    (root / "train/cat/0.jpg").write_bytes(b"no image")
    (root / "val/dog/1.jpg").write_bytes(b"")
    folder = ("data=imagefolder", f"data.root={root}", "data.image_size=32", "augment=cvnets", "tracking=none")
    done = launch(*TINY, *folder, "data.on_unreadable=skip", "train.global_batch_size=4", "train.epochs=1")
    assert done.code == 0, done.err
    assert "imagefolder, 17 + 17 images, 2 classes, 32x32, 2 unreadable images skipped" in done.out
    assert np.sum(json.loads((done.folder / "confusion.json").read_text())["counts"]) == 17


def test_a_sweep_leaves_four_finished_children_under_one_parent(launch):
    done = launch(
        "-m", *SMALL, "model=xx_small,x_small", *TINY[:2], "optimizer.lr=1e-3,2e-3", "data.num_train=40", timeout_s=290
    )
    assert done.code == 0, done.err
    runs = mlflow_runs(done)
    parents = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    children = [run for run in runs if "mlflow.parentRunId" in run.data.tags]
    assert [run.info.status for run in runs] == ["FINISHED"] * 5
    assert {run.data.tags["mlflow.parentRunId"] for run in children} == {run.info.run_id for run in parents}
    assert {(run.data.params["model.expansion"], run.data.params["optimizer.lr"]) for run in children} == {
        (expansion, lr) for expansion in ("2", "4") for lr in ("0.001", "0.002")
    }
    assert len(list(done.runs.glob("*/*/*/result.json"))) == 4


@pytest.mark.long
def test_twenty_steps_equal_those_of_the_plain_form(launch):
    if support().isa is None:
        pytest.skip(support().reason)
    recipe = ("train.max_steps=20", "train.log_every_steps=1", "tracking=none")
    fused, plain = (launch(*recipe, f"model.kernels={form}") for form in ("fused", "plain"))
    assert len(fused.losses()) == 20
    np.testing.assert_allclose(fused.losses(), plain.losses(), rtol=0, atol=1e-4)
