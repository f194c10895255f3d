"""The name of a run or of a sweep, as a person types it, and the folder it means."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from mvit.console import shown
from mvit.errors import RunDirError
from mvit.places import PROJECT
from mvit.rundir.names import all_folders, names_of
from mvit.rundir.paths import RunDir
from mvit.rundir.sweep import is_sweep
from mvit.rundir.tracking import read_record

RUNS = PROJECT / "runs"
"""Where `conf/config.yaml` puts runs."""
MAX_NAMED = 5
"""Candidates that a message names."""
_MLFLOW_ID = re.compile(r"[0-9a-f]{8,32}")
"""A run id of MLflow, or the digits it begins with."""


class UnknownRun(RunDirError):
    """No run has that name."""


def locate(name: str, *, runs: Path) -> Path:
    """The folder of the run or sweep that is called so; absolute.

    A path, from the working directory or else from the project; the name of a folder below `runs`, or its short id;
    the name, which begins with its short id, or the id that the run has in MLflow. A path to a folder that holds no run
    is returned where no run has that name: the caller knows what it may be. Raises `UnknownRun` where nothing matches,
    and `RunDirError` where several do.
    """
    paths: list[Path] = []
    with suppress(OSError, RuntimeError):  # a name that is too long, a user or a working directory that is not there
        paths = [base / Path(name).expanduser() for base in (Path.cwd(), PROJECT) if name]
        for path in paths:
            if _is_ours(path):
                return path.resolve()
    folders = list(all_folders(runs))
    name = name.partition(" ")[0]  # as it is called in MLflow
    matches = [folder for folder in folders if name in names_of(folder, runs)]
    if not matches and _MLFLOW_ID.fullmatch(name):
        matches = [folder for folder in folders if _mlflow_id(folder).startswith(name)]
    if len(matches) == 1:
        return matches[0].resolve()
    if matches:
        raise RunDirError(f"{name} names {len(matches)} runs: {_listed(matches)}; give the folder of one of them")
    with suppress(OSError):
        for path in paths:
            if path.is_dir():
                return path.resolve()
    if "/" in name:
        raise UnknownRun(f"{name} is not a run folder: it does not exist")
    close = [folder for folder in folders if name and any(name in candidate for candidate in names_of(folder, runs))]
    remedy = "give its folder, its short id such as b280, or its MLflow run id"
    if close:
        remedy = f"did you mean {_listed(close)}?"
    elif folders:
        newest = max(folders, key=lambda folder: folder.name)
        remedy += f"; the newest run is {shown(newest)}"
    raise UnknownRun(f"no run or sweep is called {name!r}; {remedy}")


def _is_ours(path: Path) -> bool:
    return RunDir(path).run.is_file() or is_sweep(path)


def _mlflow_id(folder: Path) -> str:
    record = read_record(RunDir(folder))
    return (record and record.run_id) or ""


def _listed(folders: Sequence[Path]) -> str:
    text = ", ".join(shown(folder) for folder in folders[:MAX_NAMED])
    return f"{text} and {len(folders) - MAX_NAMED} more" if len(folders) > MAX_NAMED else text
