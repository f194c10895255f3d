"""Errors for a person: each is one line, or one for each problem.

ConfigError    the request is wrong
RunDirError    a run folder cannot be made, or must not be trusted
DatasetError   data cannot be used
DataChanged    data is not what the run was planned with
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mvit.credentials import hidden

MAX_SHOWN = 300
"""Characters of a wrong value that are repeated: a path fits."""


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with a request."""

    path: str
    value: Any
    rule: str
    remedy: str

    def __str__(self) -> str:
        value = "" if self.value is None else f"{_short(self.value)} "
        return hidden(f"{self.path}: {value}{self.rule}; {self.remedy}")


class ConfigError(Exception):
    """The request is wrong; `problems` lists everything found."""

    def __init__(self, *problems: Problem) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = problems


def _short(value: Any) -> str:
    text = hidden(repr(value) if isinstance(value, str) else str(value))  # before a password may be cut in two
    return text if len(text) <= MAX_SHOWN else text[: MAX_SHOWN - 3] + "..."


def first_line(error: BaseException) -> str:
    """The first line of what an exception says; its type, where it says nothing."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


class RunDirError(Exception):
    """A run folder that cannot be made or must not be trusted; one line."""


class DatasetError(Exception):
    """Data that cannot be used."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(str(problem))
        self.problem = problem


class DataChanged(Exception):
    """Data, or a run's index of it, that is not what the run was made with; one line."""
