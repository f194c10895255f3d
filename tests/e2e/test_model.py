"""The model of a run, as MLflow's own commands load it, from another directory."""

import base64
import io
import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
import pytest

from mvit.data.dataset import open_splits
from mvit.rundir.frozen import read_run
from mvit.rundir.paths import RunDir
from mvit.rundir.predictions import read_predictions
from tests.conftest import CHECKOUT, TINY, launcher

pytestmark = pytest.mark.mindspore

SMALL = (*TINY, "data=synthetic", "data.image_size=32", "data.num_train=40", "data.num_val=20", "data.classes=7")
SMALL = (
    *SMALL,
    "train.epochs=1",
    "train.global_batch_size=8",
    "train.eval_batch_size=8",
    "data.eval_crop_fraction=0.9",
)


@pytest.fixture(scope="module")
def trained(request):
    """A tiny run with a model; averaged weights, so that those may be the better ones."""
    done = launcher(request.getfixturevalue("tmp_path_factory"))(*SMALL, "train.ema_momentum=0.1")
    assert done.code == 0, done.err + done.out
    return done


@pytest.fixture
def mlflow(trained):
    """MLflow's command line and its environment."""
    store = f"sqlite:///{trained.runs.parent}/mlflow.db"
    environment = {**os.environ, "MLFLOW_TRACKING_URI": store, "MLFLOW_DISABLE_TELEMETRY": "true"}
    environment["PATH"] = os.pathsep.join((str(Path(sys.executable).parent), environment["PATH"]))
    return [sys.executable, "-m", "mlflow"], environment


def pngs(folder):
    """The held-out images as PNG files, in base64."""
    run = read_run(RunDir(folder))
    _, source = open_splits(run.config.data, facts=run.plan.dataset, index=run.folder.data_index)
    files = []
    for index in range(len(source.labels)):
        png = io.BytesIO()
        with source.sample(index).open() as picture:
            picture.save(png, "PNG")
        files.append(base64.b64encode(png.getvalue()).decode())
    return files


def model_id(folder):
    return json.loads((folder / "tracking.json").read_text())["model_id"]


def test_mlflow_models_predict_gives_the_logits_of_the_evaluation(trained, mlflow, tmp_path):
    command, environment = mlflow
    rows = [[png] for png in pngs(trained.folder)]
    (tmp_path / "in.json").write_text(json.dumps({"dataframe_split": {"columns": ["image"], "data": rows}}))
    predict = ["models", "predict", "-m", f"models:/{model_id(trained.folder)}", "--env-manager", "local"]
    done = subprocess.run(
        [*command, *predict, "-i", "in.json", "-t", "json", "-o", "out.json"],
        capture_output=True, text=True, env=environment, cwd=tmp_path, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = np.array(json.loads((tmp_path / "out.json").read_text())["predictions"], np.float32)
    expected = read_predictions(trained.folder / "predictions.npz").logits
    difference = abs(found - expected).max()
    print(f"{len(found)} images, largest difference {difference}")
    assert (found == expected).all()


def test_mlflow_models_serve_answers_with_those_logits(trained, mlflow, tmp_path):
    command, environment = mlflow
    expected = read_predictions(trained.folder / "predictions.npz").logits
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    serve = ["models", "serve", "-m", f"models:/{model_id(trained.folder)}", "--env-manager", "local", "-p", str(port)]
    with running([*command, *serve], environment, tmp_path):
        address = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + 90
        while not answers(f"{address}/ping"):
            assert time.monotonic() < deadline, "no answer"
            time.sleep(0.2)
        payload = json.dumps({"dataframe_records": [{"image": png} for png in pngs(trained.folder)[:3]]})
        request = urllib.request.Request(
            f"{address}/invocations", payload.encode(), {"Content-Type": "application/json"}
        )
        with closing(urllib.request.urlopen(request, timeout=60)) as answer:
            found = np.array(json.load(answer)["predictions"])
    assert found == pytest.approx(expected[:3], abs=1e-6)


@contextmanager
def running(command, environment, cwd):
    process = subprocess.Popen(command, env=environment, cwd=cwd, start_new_session=True)
    try:
        yield
    finally:
        os.killpg(process.pid, 9)
        process.wait()


def answers(url):
    try:
        with closing(urllib.request.urlopen(url, timeout=2)) as answer:
            return answer.status == 200
    except OSError:
        return False


def test_the_model_has_the_metrics_and_the_class_names(trained):
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{trained.runs.parent}/mlflow.db")
    model = client.get_logged_model(model_id(trained.folder))
    assert str(model.status) == "READY"
    assert model.params["classes"] == ", ".join(read_run(RunDir(trained.folder)).plan.dataset.class_names)
    assert model.metrics
    assert model.source_run_id
    metrics = {metric.key: metric.value for metric in model.metrics}
    assert metrics["best/val_acc1"] == trained.result()["metrics"]["best/val_acc1"]
    run = client.get_run(model.source_run_id)
    assert run.outputs
    assert [output.model_id for output in run.outputs.model_outputs] == [model.model_id]
    history = client.get_metric_history(run.info.run_id, "val/acc1")
    assert len(history) == 1, "the metrics of the model are points of the run"


def test_a_run_is_registered_once(trained):
    def register(*more):
        return subprocess.run(
            [sys.executable, "-m", "mvit", "register", str(trained.folder), *more],
            capture_output=True, text=True, cwd=CHECKOUT, check=False,
        )  # fmt: skip

    first, again = register("--as", "digits"), register("--as", "digits")
    assert (first.returncode, first.stdout) == (0, again.stdout), first.stderr
    assert "mvit: version 1 of digits\n" in first.stdout
    command = first.stdout.splitlines()[-1].partition("serve it with: ")[2]
    assert command.startswith(f"MLFLOW_TRACKING_URI=sqlite:///{trained.runs.parent}/mlflow.db ")
    assert command.endswith(" -m mlflow models serve -m models:/digits/1 --env-manager local")
    wrong = register("--as", "a/b")
    assert wrong.returncode == 2
    assert "a model's name has no slash, colon or quote" in wrong.stderr
