"""A run as lists and tables show it: a status, values that can be compared, and the row of its result."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, cast

from mvit.errors import RunDirError
from mvit.files import json_digest
from mvit.parent.report.row import result_row
from mvit.rundir.ending import read_ending
from mvit.rundir.fork import read_fork
from mvit.rundir.frozen import NOT_THE_RUN, OtherVersion, Run, read_run
from mvit.rundir.objectives import values_of, with_best
from mvit.rundir.paths import RunDir
from mvit.rundir.result import read_result
from mvit.rundir.state import Status, run_status, sweep_status
from mvit.rundir.sweep import is_sweep, read_trials, short_id

Value = str | float | int | bool | None

LATEST = ("val/acc1", "val/acc5", "val/ema_acc1", "train/loss", "perf/images_per_s")
"""Metrics of a run that has no result yet."""


@dataclass(frozen=True)
class SweepRecord:
    """A sweep, as the records of its trials know it."""

    id: str
    name: str
    status: str
    started: str


@dataclass(frozen=True)
class Record:
    """A run, or what is left of one, in a folder or in a tracking store."""

    folder: RunDir
    """Where its files are; of a run in a store, those that were sent."""
    status: Status | Literal["QUEUED"]
    """QUEUED for one that waits in a scheduler."""
    id: str = ""
    """The short id, by which commands find it."""
    name: str = ""
    """What distinguishes a trial; what a run is of."""
    started: str = ""
    """Local time, as `2026-11-29 14:05`."""
    sweep: SweepRecord | None = None
    """That of a trial."""
    forked_from: str = ""
    """What a fork started from, as far as it is known: a run, and after which step."""
    run: Run | None = None
    problem: str = ""
    """Why there is no `run`."""
    failure: str = ""
    """The first cause of a failure, as `nan: the loss is not finite`."""
    metrics: Mapping[str, float] = field(default_factory=dict[str, float])
    row: Mapping[str, str] | None = None
    """The columns of the published table; None without a result."""
    params: Mapping[str, Value] = field(default_factory=dict[str, Value])
    """What a store says of a run that has sent no files."""
    is_whole: bool = True
    """Whether all its files are there, so that it can be checked."""

    @cached_property
    def values(self) -> dict[str, Value]:
        """What can be asked for: the configuration by dotted paths, the metrics, the plan, and what the run is.

        A section of the configuration stands for its kind, and `model` for the name of the model.
        """
        own: dict[str, Value] = {
            "id": self.id,
            "status": self.status,
            "started": self.started,
            "sweep": self.sweep.id if self.sweep else "",
            "folder": str(self.folder.path),
        }
        if self.run is None:
            return {**self.params, **self.metrics, **own}
        config, plan = self.run.config.model_dump(mode="json"), self.run.plan
        planned: dict[str, Value] = {
            "cards": plan.world_size,
            "device": plan.device,
            "params": plan.parameters,
            "macs": plan.macs,
            "kernels": plan.kernels.isa or "plain",
            "jit_level": plan.jit_level or "",
        }
        return {**flat(config), **planned, **self.metrics, **own, "model": self.run.config.model.name}

    @property
    def job(self) -> str:
        """The same for runs that differ in their seed alone. A fork has steps that its configuration hides."""
        if self.run is None:
            return str(self.folder.path)
        plan = self.run.plan
        config = self.run.config.model_dump(mode="json", exclude={*NOT_THE_RUN, "seed"})
        made_with = [plan.world_size, plan.threads, plan.kernels.isa, plan.dataset.fingerprint]
        return json_digest([config, *made_with, self.forked_from])


def read_records(folders: Iterable[Path]) -> Iterator[Record]:
    """A record of each run in these folders: runs, sweeps, or folders that hold them, such as `runs`; oldest first."""
    seen: set[Path] = set()
    sweeps: dict[Path, SweepRecord] = {}
    for folder in folders:
        for run, sweep in sorted(_runs(folder), key=lambda found: _age(*found)):
            if run not in seen:
                seen.add(run)
                if sweep and sweep not in sweeps:
                    sweeps[sweep] = sweep_record(sweep)
                yield read_record(RunDir(run), sweep=sweeps[sweep] if sweep else None)


def sweep_record(folder: Path) -> SweepRecord:
    """What its folder says of a sweep."""
    return SweepRecord(short_id(folder), folder.parent.name, sweep_status(folder), started(folder))


def read_record(folder: RunDir, *, sweep: SweepRecord | None = None) -> Record:
    """The record of one run, whatever state it is in."""
    run, metrics, row, problem = None, dict[str, float](), None, ""
    try:
        run = read_run(folder)
    except OtherVersion:
        problem = "made by another version of mvit"
    except RunDirError:
        problem = "run.json is damaged"
    if run and (result := read_result(folder)):
        metrics, row = with_best(result.metrics), result_row(run, result)
    elif run:
        metrics = values_of(run, LATEST)
    path, ending, fork = folder.path, read_ending(folder), read_fork(folder)
    return Record(
        folder,
        run_status(folder),
        id=short_id(path),
        name=path.name.partition("-")[2].rpartition("-")[0] if sweep else path.parent.name,
        started=started(path) or (sweep.started if sweep else ""),
        sweep=sweep,
        forked_from=f"{fork.name} after step {fork.step}" if fork else "",
        run=run,
        problem=problem,
        failure=f"{ending.error.kind}: {ending.error.message}" if ending and ending.error else "",
        metrics=metrics,
        row=row,
    )


def run_of(folder: Path) -> Record:
    """The record of the run in this folder; raises `RunDirError` where it is another one's, or cannot be read."""
    if is_sweep(folder):
        raise RunDirError(f"{folder} is a sweep; name one of its trials")
    record = read_record(RunDir(folder), sweep=sweep_record(folder.parent) if is_sweep(folder.parent) else None)
    if record.run is None:
        read_run(record.folder)  # which says why
    return record


def started(folder: Path) -> str:
    """When a folder was made, by its name; nothing where that does not say."""
    parts = folder.name.split("-")
    if len(parts) < 3 or not (len(parts[0]) == 8 and len(parts[1]) == 6 and (parts[0] + parts[1]).isdecimal()):
        return ""
    day, time = parts[0], parts[1]
    return f"{day[:4]}-{day[4:6]}-{day[6:]} {time[:2]}:{time[2:4]}"


def flat(value: Any, prefix: str = "") -> dict[str, Value]:
    """`{"a": {"kind": "b", "c": 1}}` as `{"a": "b", "a.kind": "b", "a.c": 1}`."""
    if isinstance(value, dict):
        parts = cast(dict[str, Any], value)
        own: dict[str, Value] = {prefix: parts["kind"]} if prefix and "kind" in parts else {}
        return own | {k: v for key, part in parts.items() for k, v in flat(part, f"{prefix}.{key}".lstrip(".")).items()}
    return {prefix: value if isinstance(value, str | float | int | bool | None) else str(value)}


def _runs(folder: Path) -> Iterator[tuple[Path, Path | None]]:
    """Each run in a folder, with the sweep that it belongs to."""
    if RunDir(folder).run.is_file():
        yield folder, folder.parent if is_sweep(folder.parent) else None
    elif is_sweep(folder):
        for trial in read_trials(folder):
            yield folder / trial.folder, folder
    else:
        for file in (*folder.glob("*/run.json"), *folder.glob("*/*/run.json")):
            yield file.parent, None if not is_sweep(file.parents[1]) else file.parents[1]
        for file in folder.glob("*/*/*/run.json"):
            yield file.parent, file.parents[1]


def _age(run: Path, sweep: Path | None) -> tuple[str, Sequence[str]]:
    """Sorts by the time in the name of the run, or of its sweep."""
    return (sweep or run).name, [run.name] if sweep else []
