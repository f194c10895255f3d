"""The selection of runs that a person names or filters."""

from __future__ import annotations

from collections.abc import Sequence

from mvit.parent.locate import RUNS, locate
from mvit.parent.report.record import Record, read_records
from mvit.parent.report.where import parse_where


def select(names: Sequence[str], *, where: str | None) -> list[Record]:
    """The runs of that name or in that folder, all of them without a name, for which the filter holds; oldest first.

    Raises `RunDirError` for a name that is unknown, `ConfigError` for a filter that cannot be read.
    """
    condition = parse_where(where) if where is not None else None
    records = list(read_records([locate(name, runs=RUNS) for name in names] or [RUNS]))
    return condition.select(records) if condition else records
