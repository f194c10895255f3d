"""Dashboard: views of an MLflow experiment, declared in conf/dashboard/."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import Field, TypeAdapter

from mvit.config import Frozen, Strings
from mvit.places import CONF

FOLDER = CONF / "dashboard"


class Line(Frozen):
    """A metric over the steps of each run."""

    kind: Literal["line"]
    metric: str


class Bar(Frozen):
    """The last value of a metric, a bar for each run."""

    kind: Literal["bar"]
    metric: str


class Scatter(Frozen):
    """A point for each run. An axis is a metric, or a parameter as `params.optimizer.lr`."""

    kind: Literal["scatter"]
    x: str
    y: str


class Parallel(Frozen):
    """Parallel coordinates: a line for each run."""

    kind: Literal["parallel"]
    params: Strings
    metrics: Strings


Chart = Annotated[Line | Bar | Scatter | Parallel, Field(discriminator="kind")]


class Section(Frozen):
    """Charts under a heading."""

    name: str
    charts: Annotated[tuple[Chart, ...], Field(strict=False)]


class View(Frozen):
    """A saved view: which runs, in which order and columns, under which charts."""

    name: str
    filter: str
    """As MLflow's search takes it."""
    order_by: str
    """A column."""
    ascending: bool
    columns: Strings
    """`metrics.val/acc1`, `params.seed`, `tags.topology`, `attributes.Duration` and the like."""
    sections: Annotated[tuple[Section, ...], Field(strict=False)]


def read_views(folder: Path = FOLDER) -> dict[str, View]:
    """Every declared view by the name of its file; raises `ValueError` for one that is not as it must be."""
    adapter = TypeAdapter(View)
    views: dict[str, View] = {}
    for file in sorted(folder.glob("*.yaml")):
        try:
            views[file.stem] = adapter.validate_python(yaml.safe_load(file.read_text(encoding="utf-8")))
        except ValueError as error:
            raise ValueError(f"{file}: {error}") from error
    return views
