"""Paths in a request: those of the directory in which they are typed, from wherever a run is executed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from mvit.data.unlabelled import absolute_name
from mvit.parent.request.check import sweep_settings
from mvit.sweep_config import SearchSweep, SweepConfig

PATHS = (
    ("data", "root"),
    ("data", "class_names"),
    ("data", "images"),
    ("init", "checkpoint"),
    ("task", "checkpoint"),
    ("task", "output"),
    ("topology", "rank_table"),
)
"""Values of a run that are paths, from the working directory; it may be executed from another one."""


def make_absolute(raw: dict[str, Any], *, frozen: Mapping[str, Any] | None = None) -> None:
    """Make paths those that they are from any directory, but for those that a run was `frozen` with."""
    for section, key in PATHS:
        values = raw.get(section)
        if not isinstance(values, dict):
            continue
        value = cast(dict[str, Any], values).get(key)
        if frozen and value == frozen.get(section, {}).get(key):
            continue
        absolute = absolute_name if key == "images" else _absolute
        if isinstance(value, str) and value and value != "???":
            values[key] = absolute(value)
        elif isinstance(value, list) and key == "images":
            values[key] = [absolute(name) if isinstance(name, str) else name for name in cast(list[Any], value)]


def absolute_settings(raw: dict[str, Any]) -> SweepConfig:
    """How a sweep is gone through, with paths that are the same from any directory; raises `ConfigError`."""
    settings = sweep_settings(raw)
    if isinstance(settings, SearchSweep):
        return settings.model_copy(update={"start_from": tuple(map(_absolute, settings.start_from))})
    return settings.model_copy(update={"trials": f"@{settings.file.absolute()}"}) if settings.file else settings


def _absolute(path: str) -> str:
    return str(Path(path).absolute())
