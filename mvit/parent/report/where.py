"""Filters of `ls` and `table`: `val/acc1>98 and model=xx_small`."""

from __future__ import annotations

import difflib
import operator
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from mvit.errors import ConfigError, Problem
from mvit.parent.report.record import Record, Value

_OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq,
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_COMPARISON = re.compile(
    r"""\s*(?P<key>[\w./@-]+)\s*(?P<operator><=|>=|!=|==|=|<|>)\s*(?P<value>"[^"]*"|'[^']*'|[^\s<>=!]+)\s*""", re.ASCII
)
_WORD = re.compile(r"(and|or)\b\s*", re.IGNORECASE)
REMEDY = "write it as 'val/acc1>98 and model=xx_small'"


@dataclass(frozen=True)
class Comparison:
    """One key against one value; what a run does not have is not matched."""

    key: str
    operator: str
    value: str

    def holds(self, values: Mapping[str, Value]) -> bool:
        mine = values.get(self.key)
        if mine is None:
            return False
        compare = _OPERATORS[self.operator]
        if isinstance(mine, bool):
            return compare(str(mine).lower(), self.value.lower())
        if isinstance(mine, int | float):
            number = _number(self.value)
            return self.operator == "!=" if number is None else compare(mine, number)
        return compare(mine, self.value)


@dataclass(frozen=True)
class Where:
    """Comparisons, `and` binding closer than `or`."""

    alternatives: tuple[tuple[Comparison, ...], ...]

    def select(self, records: Iterable[Record]) -> list[Record]:
        """The records for which it holds; raises `ConfigError` for a key that none of them has."""
        every = list(records)
        known = {key for record in every for key in record.values}
        if every and (problems := [self._unknown(key, known) for key in self.keys if key not in known]):
            raise ConfigError(*problems)
        return [record for record in every if self.holds(record.values)]

    def holds(self, values: Mapping[str, Value]) -> bool:
        return any(all(one.holds(values) for one in every) for every in self.alternatives)

    @property
    def keys(self) -> list[str]:
        return list(dict.fromkeys(one.key for every in self.alternatives for one in every))

    def _unknown(self, key: str, known: Collection[str]) -> Problem:
        close = difflib.get_close_matches(key, known, n=3)
        remedy = f"did you mean {', '.join(close)}?" if close else "use a metric, or a key of the configuration"
        return Problem("--where", key, "is nothing that these runs have", remedy)


def parse_where(text: str) -> Where:
    """Raises `ConfigError` for what cannot be read."""
    alternatives: list[list[Comparison]] = [[]]
    at = 0
    while match := _COMPARISON.match(text, at):
        alternatives[-1].append(Comparison(match["key"], match["operator"], match["value"].strip("\"'")))
        at = match.end()
        if at == len(text):
            return Where(tuple(tuple(every) for every in alternatives))
        word = _WORD.match(text, at)
        if word is None:
            break
        at = word.end()
        if word[1].lower() == "or":
            alternatives.append([])
    raise ConfigError(Problem("--where", text, f"cannot be read from {text[at : at + 20]!r} on", REMEDY))


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
