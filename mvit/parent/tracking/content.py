"""What MLflow gets of a run folder beside its journal: parameters, tags, artifacts; and where it is to be seen."""

from __future__ import annotations

import socket
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

from mvit.config import CheckpointConfig
from mvit.console import mvit_command
from mvit.errors import first_line
from mvit.files import read_mapping
from mvit.parent.report import pictures
from mvit.parent.tracking.mirror import UsedDataset
from mvit.parent.tracking.names import name_of_run
from mvit.parent.tracking.store import MlflowStatus, database_of
from mvit.parent.verdict import first_report
from mvit.rundir.checkpoints import run_of
from mvit.rundir.ending import EndStatus, Failure, read_ending, read_failure
from mvit.rundir.exported import exported_form, read_about
from mvit.rundir.fork import read_fork
from mvit.rundir.frozen import Run
from mvit.rundir.paths import RunDir
from mvit.rundir.status import read_statuses
from mvit.rundir.sweep import is_sweep, short_id
from mvit.rundir.tracking import read_record

MAX_DIGEST = 36
"""Characters of a dataset's digest in MLflow."""
MAX_ERROR = 5000
"""Characters of a failure's message."""


def parameters_of(run: Run) -> dict[str, str]:
    """Every value of the configuration by its dotted path, and what of the plan explains a result."""
    plan = run.plan
    planned = {
        "plan.parameters": str(plan.parameters),
        "plan.macs": str(plan.macs),
        "plan.kernels": plan.kernels.isa or "plain",
    }
    return {**_flat(run.config.model_dump(mode="json")), **planned}


def dataset_of(run: Run) -> UsedDataset:
    """The data of the run, by the fingerprint that its plan has."""
    data = run.config.data
    return UsedDataset(data.kind, run.plan.dataset.fingerprint[:MAX_DIGEST], str(getattr(data, "root", data.kind)))


def tags_of(run: Run) -> dict[str, str]:
    """Tags of the run; what a torn provenance would say is left out."""
    folder, plan = run.folder, run.plan
    made_of = read_mapping(folder.provenance) or {}
    fork = read_fork(folder)
    above = folder.path.parent
    sweep = short_id(above) if is_sweep(above) else ""
    return {
        "mlflow.runName": name_of_run(run),
        "mlflow.source.git.commit": str(made_of.get("commit") or ""),
        "mlflow.user": str(made_of.get("user") or ""),
        "host": str(made_of.get("host") or ""),
        "topology": f"{plan.world_size} {plan.device}",
        "folder": str(folder.path),
        "mvit.kind": "trial" if sweep else run.config.task.kind,
        "mvit.sweep": sweep,
        "mvit.forked_from": fork.name if fork else "",
        **_trained_by(run),
    }


def _trained_by(run: Run) -> dict[str, str]:
    """Which run the weights are from that a task uses, and its run in MLflow."""
    task = run.config.task
    if not isinstance(task, CheckpointConfig):
        return {}
    path = Path(task.checkpoint)
    if exported_form(path):
        with suppress(OSError, ValueError):  # it was overwritten since
            path = Path(read_about(path.parent).source)
    folder = run_of(path)
    if not folder.run.is_file():  # imported weights
        return {"mvit.trained_by": path.name}
    record = read_record(folder)
    return {"mvit.trained_by": folder.path.name, "mvit.trained_by_run_id": (record and record.run_id) or ""}


def tags_of_sweep(folder: Path) -> dict[str, str]:
    """Tags of the run that its trials are below."""
    return {
        "mvit.kind": "sweep",
        "mvit.sweep": short_id(folder),
        "folder": str(folder),
        "host": socket.gethostname(),
    }


def mlflow_status(status: EndStatus) -> MlflowStatus:
    """MLflow knows no pause: what was stopped to go on later is KILLED there."""
    return "KILLED" if status == "PAUSED" else status


def artifacts_of(folder: RunDir, *, status: EndStatus) -> list[Path]:
    """The files that go with a run that ended so; logs and statuses where someone will ask why."""
    files = [folder.run, folder.provenance, folder.patch, folder.result, folder.journal, folder.answers]
    files += sorted(folder.exported.glob("model.*"))
    files += sorted(file for file in folder.profile.glob("*") if file.suffix in (".csv", ".json"))
    files += sorted(folder.path.glob("*.png"))
    if status != "FINISHED":
        files += [folder.error, *sorted(folder.logs.rglob("*.log")), *sorted(folder.status.glob("[!.]*.json"))]
    return [file for file in files if file.is_file()]


def failure_tags(failure: Failure) -> dict[str, str]:
    """Tags for the first cause of a failure."""
    return {"error": failure.message[:MAX_ERROR], "error.kind": failure.kind}


def failure_tags_of(folder: RunDir) -> dict[str, str]:
    """The same from the folder: as the parent recorded it, else as a worker did."""
    ending = read_ending(folder)
    failure = read_failure(folder) or (ending and ending.error) or first_report(read_statuses(folder))
    return failure_tags(failure) if failure else {}


def draw_pictures(run: Run) -> str | None:
    """Draw the pictures of the run; returns one line where that fails."""
    if not run.folder.journal.exists():  # loading what draws takes seconds
        return None
    try:
        pictures.draw_all(run)
    except Exception as error:  # noqa: BLE001  a picture is no reason to lose the status of a run
        return f"cannot draw the run: {first_line(error)}"
    return None


def sync_command(path: Path) -> str:
    """What a person types to send the rest."""
    return mvit_command("sync", path)


def location(folder: RunDir, *, name: str) -> str | None:
    """Where the run of that name is to be seen: a URL, or a database and the run in it; None while it is nowhere."""
    record = read_record(folder)
    if record is None or record.run_id is None:
        return None
    store, run_id = record.store, record.run_id
    if store.startswith(("http://", "https://")):
        return f"{store.rstrip('/')}/#/experiments/{record.experiment_id}/runs/{run_id}"
    database = database_of(store)
    return f"{database.name if database else store}, experiment {record.experiment}, run {name} ({run_id[:8]})"


def seen_with(folder: RunDir, *, name: str) -> str | None:
    """The location, and how to see it: a server shows itself, a database needs one."""
    where = location(folder, name=name)
    if where is None or where.startswith("http"):
        return where and f"MLflow: {where}"
    return f"MLflow: {where}; see it with: {mvit_command('ui')}"


def _flat(value: Any, prefix: str = "") -> dict[str, str]:
    """`{"a": {"b": 1}}` as `{"a.b": "1"}`."""
    if not isinstance(value, dict):
        return {prefix: str(value)}
    parts = cast(dict[str, Any], value)
    return {k: v for key, part in parts.items() for k, v in _flat(part, f"{prefix}.{key}".lstrip(".")).items()}
