"""The best weights of a run as a model of MLflow, which anything that loads such models can predict with."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportMissingTypeStubs=false
# pandas and safetensors are not typed, or partly.

from __future__ import annotations

import base64
import io
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from mvit.config import ImagesConfig, TrainRun
from mvit.console import mvit_command
from mvit.data.dataset import open_splits
from mvit.errors import DataChanged, DatasetError, RunDirError
from mvit.models.spec import parameter_shapes
from mvit.parent.tracking.names import name_of_run
from mvit.parent.tracking.store import ANSWER_TIMEOUT_S, connect, cut, uri_of, within
from mvit.rundir.checkpoints import Checkpoint, tagged
from mvit.rundir.frozen import Run
from mvit.rundir.journal import JournalReader
from mvit.rundir.state import run_status
from mvit.rundir.sweep import is_sweep
from mvit.rundir.tracking import read_record
from mvit.served_model import COLUMN, WEIGHTS, ServedModel, write_about

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel, Metric

LOADER = "mvit.worker.pyfunc"
PACKAGES = ("mindspore", "numpy", "pillow", "pydantic", "safetensors")
"""What predicting needs, besides mvit."""
MAX_PARAM = 6000
"""Characters of a parameter of a model."""


@dataclass(frozen=True)
class Registered:
    """A version of a model in the registry."""

    name: str
    version: int
    store: str
    """The URI of the store, without credentials."""

    @property
    def uri(self) -> str:
        return f"models:/{self.name}/{self.version}"


def register(run: Run, *, name: str) -> Registered:
    """Make the run's model a version of a registered one; the same version where it is one already.

    Raises `RunDirError` for a run that has not finished, has no best weights or is in no store, and `TrackingError`.
    """
    record, status = read_record(run.folder), run_status(run.folder)
    if status != "FINISHED" or not isinstance(run.config, TrainRun):  # the best of another one may still change
        raise RunDirError(f"{run.folder.path} is not a training that has finished: it is {status}")
    _best(run)
    if record is None or record.run_id is None or record.experiment_id is None:
        remedy = f"{mvit_command('sync', run.folder.path)} sends it"
        raise RunDirError(f"{run.folder.path} is in no tracking store; {remedy}")
    uri, run_id, experiment_id = uri_of(record.store), record.run_id, record.experiment_id

    def act() -> Registered:
        from mlflow.exceptions import MlflowException

        client = connect(uri)
        model_id = log_model(client, run, run_id=run_id, experiment_id=experiment_id, name=name_of_run(run))
        try:
            client.create_registered_model(name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        for version in client.search_model_versions(f"name = '{name}'"):
            if version.run_id == run_id:
                return Registered(name, int(version.version), record.store)
        # MLflow would resolve models:/ID in its default store.
        source = client.get_logged_model(model_id).artifact_location
        made = client.create_model_version(name, source, run_id, model_id=model_id)
        return Registered(name, int(made.version), record.store)

    return within(ANSWER_TIMEOUT_S, act, uri)


def logs_model(run: Run) -> bool:
    """Whether the run is logged with its model once it has finished: a trial of a sweep is not, unless someone asks."""
    return isinstance(run.config, TrainRun) and not is_sweep(run.folder.path.parent)


def log_model(client: MlflowClient, run: Run, *, run_id: str, experiment_id: str, name: str) -> str:
    """The id of the run's model, made and finished if need be.

    Raises `RunDirError` for a run without a best checkpoint, what MLflow raises, and `OSError`.
    """
    from mlflow.entities import LoggedModelOutput, LoggedModelStatus

    best = _best(run)
    begun = _model_of(client, run_id=run_id, experiment_id=experiment_id)
    if begun and begun.status == LoggedModelStatus.READY:
        return str(begun.model_id)
    model = begun or client.create_logged_model(
        experiment_id, name=name, source_run_id=run_id, params=_params(run), model_type="image classification"
    )
    with TemporaryDirectory() as room:
        _write(run, best, Path(room) / "model")
        client.log_model_artifacts(model.model_id, str(Path(room) / "model"))
    points = _metrics(run, best, model_id=model.model_id, run_id=run_id)
    client.log_batch(run_id, metrics=points, synchronous=True)
    outputs = client.get_run(run_id).outputs
    if model.model_id not in [output.model_id for output in (outputs.model_outputs if outputs else ())]:
        client.log_outputs(run_id, [LoggedModelOutput(model.model_id, best.step)])
    client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)
    return str(model.model_id)


def _best(run: Run) -> Checkpoint:
    best = tagged(run.folder.checkpoints, "best")
    if best is None or not best.is_whole():
        raise RunDirError(f"{run.folder.path} has no best checkpoint that is whole")
    return best


def _model_of(client: MlflowClient, *, run_id: str, experiment_id: str) -> LoggedModel | None:
    models = client.search_logged_models([experiment_id], f"source_run_id = '{run_id}'", max_results=1)
    return models[0] if models else None


def _params(run: Run) -> dict[str, str]:
    config, plan = run.config, run.plan
    named = {
        "recipe": config.name,
        "image_size": config.data.image_size,
        "classes": ", ".join(plan.dataset.class_names),
        "parameters": plan.parameters,
        "macs": plan.macs,
        "precision": config.precision.kind,
    }
    return {key: cut(str(value), MAX_PARAM) for key, value in named.items()}


def _metrics(run: Run, best: Checkpoint, *, model_id: str, run_id: str) -> list[Metric]:
    """Those of the best evaluation, as the run has them: MLflow keeps a point once, whoever names it."""
    from mlflow.entities import Metric

    lines = [entry for entry in JournalReader(run.folder.journal).entries() if "val/acc1" in entry.get("metrics", {})]
    line = next((entry for entry in reversed(lines) if entry["step"] == best.step), None)
    at = int(line["time"] * 1000) if line else 0
    metrics = line["metrics"].items() if line else ()
    return [Metric(key, float(value), at, best.step, model_id=model_id, run_id=run_id) for key, value in metrics]


def _write(run: Run, best: Checkpoint, out: Path) -> None:
    """The folder that MLflow loads."""
    import numpy as np
    import pandas as pd
    from mlflow import pyfunc
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema, TensorSpec
    from mlflow.types.schema import AnyType
    from safetensors.numpy import load_file, save_file

    config, plan = run.config, run.plan
    assert isinstance(config, TrainRun)
    data = out.with_name("network")
    data.mkdir()
    prefix = "ema." if best.read_sidecar().best_of == "ema" else ""
    tensors = load_file(best.tensors)
    names = parameter_shapes(config.model, num_classes=plan.num_classes)
    save_file({name: tensors[f"{prefix}{name}"] for name in names}, data / WEIGHTS)
    topology = config.topology
    limit = topology.onednn_max_isa if topology.kind == "cpu" and topology.onednn_max_isa != "default" else None
    images = ImagesConfig(**{key: getattr(config.data, key) for key in ImagesConfig.model_fields})
    write_about(
        data,
        ServedModel(
            model=config.model,
            images=images,
            precision=config.precision,
            kernels=plan.kernels,
            threads=plan.threads,
            onednn_max_isa=limit,
            batch_size=config.eval_batch_size,
            class_names=plan.dataset.class_names,
        ),
    )
    outputs = Schema([TensorSpec(np.dtype(np.float32), (-1, plan.num_classes))])
    pyfunc.save_model(
        str(out),
        loader_module=LOADER,
        data_path=str(data),
        signature=ModelSignature(inputs=Schema([ColSpec(AnyType(), COLUMN)]), outputs=outputs),
        input_example=pd.DataFrame({COLUMN: [_example(run)]}),
        pip_requirements=[f"{package}=={metadata.version(package)}" for package in PACKAGES],
        metadata={"class_names": list(plan.dataset.class_names)},
    )


def _example(run: Run) -> str:
    """An image of the held-out set, as a client sends it, a PNG in base64; a black one where the data are not here."""
    from PIL import Image

    size = run.config.data.image_size
    picture = Image.new("RGB", (size, size))
    with suppress(DatasetError, DataChanged, OSError):
        _, source = open_splits(run.config.data, facts=run.plan.dataset, index=run.folder.data_index)
        with source.sample(0).open() as stored:
            picture = stored.convert("RGB")
    png = io.BytesIO()
    picture.save(png, "PNG")
    return base64.b64encode(png.getvalue()).decode()
