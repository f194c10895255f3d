"""The axes of a sweep: what was typed for several runs, as lists of values, intervals, or the rows of a file."""

from __future__ import annotations

import csv
import itertools
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep
from hydra.errors import HydraException, OverrideParseException

from mvit.console import shown
from mvit.errors import ConfigError, Problem
from mvit.parent.request.compose import Composer

DIGITS = 4
"""Significant digits of a number that is drawn: more of them make no difference, and long names."""


@dataclass(frozen=True)
class Axis:
    """A key with the values that it may have: a list, or an interval."""

    key: str
    """As it was typed, such as `optimizer.lr` or `+experiment`."""
    values: tuple[str, ...] = ()
    """As a person would type each of them; empty for an interval."""
    low: float = 0.0
    high: float = 0.0
    is_log: bool = False
    is_int: bool = False

    @property
    def is_interval(self) -> bool:
        return not self.values

    def override(self, value: str | float) -> str:
        """The override that gives the key this value."""
        return f"{self.key}={value if isinstance(value, str) else self.text(value)}"

    def text(self, value: float) -> str:
        """A number of the interval, as short as it may be."""
        return str(round(value)) if self.is_int else repr(min(max(float(f"{value:.{DIGITS}g}"), self.low), self.high))


@dataclass(frozen=True)
class Space:
    """What was typed for several runs: what all of them have, and the axes on which they differ."""

    fixed: tuple[str, ...]
    axes: tuple[Axis, ...]

    @property
    def by_key(self) -> dict[str, Axis]:
        """The axes, by their keys without signs."""
        return {bare(axis.key): axis for axis in self.axes}

    @property
    def size(self) -> int:
        """The number of combinations of the lists."""
        return math.prod(len(axis.values) for axis in self.axes)

    def combinations(self) -> list[list[str]]:
        """The overrides of each run: every combination of the values, the last axis changing first."""
        lists = [[axis.override(value) for value in axis.values] for axis in self.axes]
        return [[*self.fixed, *chosen] for chosen in itertools.product(*lists)]

    def joined(self, more: Space) -> Space:
        """This space and one that was typed later: its lists are added to those of the same key."""
        ours, theirs = self.by_key, more.by_key
        both = [
            replace(axis, values=(*dict.fromkeys((*axis.values, *theirs[key].values)),)) if key in theirs else axis
            for key, axis in ours.items()
        ]
        new = [axis for key, axis in theirs.items() if key not in ours]
        varied = {bare(axis.key) for axis in new}
        fixed = [text for text in self.fixed if bare(text.partition("=")[0]) not in varied]
        return Space((*fixed, *more.fixed), (*both, *new))


def bare(key: str) -> str:
    """A key without what Hydra may have in front of it."""
    return key.lstrip("+~")


def read_space(overrides: Sequence[str], composer: Composer) -> Space:
    """Sort overrides into fixed ones and axes; one that comes later replaces an earlier one of its key.

    Raises `ConfigError` for an axis without a value, and for settings of the sweep itself that are one.
    """
    parser = OverridesParser.create(config_loader=composer.loader)
    found: dict[str, str | Axis] = {}
    problems: list[Problem] = []
    for text in overrides:
        text = text.removeprefix("++")  # as launch.py wrote it
        try:
            one = parser.parse_overrides([text])[0]
        except (OverrideParseException, HydraException):
            key, equals, value = text.partition("=")
            rule = "cannot be parsed" if equals else "has no value"
            problems.append(Problem(key, value or None, rule, f"write {key}=..., quoted twice where it has signs"))
            continue
        key = one.get_key_element()
        if not one.is_sweep_override():
            found[bare(key)] = text
            continue
        try:
            axis = _axis(one, key)
        except (HydraException, ValueError) as error:
            problems.append(Problem(bare(key), text.partition("=")[2], f"is not an axis: {error}", "give it values"))
            continue
        if re.match(r"sweep\b", bare(key)):
            problems.append(Problem(bare(key), text.partition("=")[2], "is for all trials", "give it one value"))
        found[bare(key)] = axis
    if problems:
        raise ConfigError(*problems)
    fixed = tuple(one for one in found.values() if isinstance(one, str))
    return Space(fixed, tuple(one for one in found.values() if isinstance(one, Axis)))


def _axis(one: Override, key: str) -> Axis:
    value = cast(Any, one)._value  # Hydra has no other way to the bounds of an interval
    tags = set(getattr(value, "tags", ()))
    if wrong := tags - ({"log"} if isinstance(value, IntervalSweep) else set()):
        raise ValueError(f"tag {sorted(wrong)[0]} means nothing here; tag(log,interval(...)) is there")
    if isinstance(value, IntervalSweep):
        low, high = value.start, value.end
        if low is None or high is None or not low < high:
            raise ValueError("the lower bound must be below the upper one")
        is_log = "log" in value.tags
        if is_log and low <= 0:
            raise ValueError("a logarithmic interval must begin above 0")
        is_int = isinstance(low, int) and isinstance(high, int)
        return Axis(key, low=float(low), high=float(high), is_log=is_log, is_int=is_int)
    if isinstance(value, RangeSweep) and not list(value.range()):
        raise ValueError("its range has no values")
    values = tuple(one.sweep_string_iterator())
    if not values:
        raise ValueError("it has no values")
    return Axis(key, values=values)


def rows_of(path: Path, *, fixed: Sequence[str]) -> list[list[str]]:
    """The trials of a CSV file: a column for each key, a row for each trial.

    An empty cell leaves its key as it is. Raises `ConfigError`.
    """
    file = f"@{shown(path)}"
    if path.exists() and not path.is_file():
        raise ConfigError(Problem("sweep.trials", file, "is not a regular file", "name a CSV file"))
    try:
        with path.open(encoding="utf-8-sig", newline="") as lines:
            table = [(number, row) for number, row in enumerate(csv.reader(lines), 1) if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = error.strerror if isinstance(error, OSError) else "is no CSV file"
        raise ConfigError(Problem("sweep.trials", file, f"cannot be read: {reason}", "name a CSV file")) from error
    if len(table) < 2:  # a header and a row
        raise ConfigError(Problem("sweep.trials", file, "has no trials", "write a row below the keys"))
    (_, header), *rows = table
    if problems := list(_table_problems(file, header, rows)):
        raise ConfigError(*problems)
    return [
        [*fixed, *(f"{key.strip()}={cell.strip()}" for key, cell in zip(header, row, strict=True) if cell.strip())]
        for _, row in rows
    ]


def _table_problems(file: str, header: Sequence[str], rows: Sequence[tuple[int, list[str]]]) -> Iterator[Problem]:
    keys = [key.strip() for key in header]
    if "" in keys or len(set(keys)) < len(keys):
        yield Problem("sweep.trials", file, "has a column without a key, or a key twice", "name each column once")
    for number, row in rows:
        if len(row) != len(header):
            rule = f"is torn: line {number} has {len(row)} values, and the header {len(header)} keys"
            yield Problem("sweep.trials", file, rule, "complete the line")
    for key in keys:
        if re.match(r"sweep\b", bare(key)):
            yield Problem("sweep.trials", file, f"has the column {key}, which is for all trials", "remove it")
