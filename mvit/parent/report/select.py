"""The selection of runs that a person names or filters."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mvit.errors import RunDirError
from mvit.parent.locate import RUNS, locate
from mvit.parent.report.jobs import with_jobs
from mvit.parent.report.record import Record, read_records
from mvit.parent.report.where import parse_where
from mvit.parent.tracking.fetch import fetched


def select(names: Sequence[str], *, where: str | None) -> list[Record]:
    """The runs of that name or in that folder, all of them without a name, for which the filter holds; oldest first.

    Raises `RunDirError` for a name that is unknown, `ConfigError` for a filter that cannot be read.
    """
    condition = parse_where(where) if where is not None else None
    records = with_jobs(list(read_records([locate(name, runs=RUNS) for name in names] or [RUNS])))
    return condition.select(records) if condition else records


def select_stored(names: Sequence[str], *, where: str | None, uri: str, experiment: str, room: Path) -> list[Record]:
    """The same of an experiment in a tracking store; names are short ids of runs or sweeps.

    Raises `RunDirError` for a name that is unknown or a store that does not answer. Files are put into `room`.
    """
    condition = parse_where(where) if where is not None else None
    records = fetched(uri, experiment=experiment, room=room)
    if unknown := [name for name in names if not any(_is_called(record, name) for record in records)]:
        raise RunDirError(f"{unknown[0]} names no run of the experiment {experiment} in that store")
    if names:
        records = [record for record in records if any(_is_called(record, name) for name in names)]
    return condition.select(records) if condition else records


def _is_called(record: Record, name: str) -> bool:
    return name in (record.id, record.sweep.id if record.sweep else None)
