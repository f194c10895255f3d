"""A command line as far as it is typed: which of our programs it calls, and with what."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

LAUNCHER = Path(__file__).resolve().parents[3] / "launch.py"
TAKE_A_VALUE = ("-W", "-X")
"""Options of Python that another word follows."""


class Line(NamedTuple):
    program: Literal["launch", "mvit"]
    """`launch.py`, or `python -m mvit` of any other command."""
    words: Sequence[str]
    """After the program, before the one that is being typed."""
    current: str
    """The word that is being typed, empty where it is not begun."""


def read(typed: Sequence[str]) -> Line | None:
    """The line whose last word is being typed; None where it calls another program."""
    words, current = list(typed[:-1]), "".join(typed[-1:]).lstrip("\"'")
    while words and re.match(r"\w+=", words[0]):  # of its environment
        words.pop(0)
    if not words:
        return None
    name = Path(words[0]).name
    if name == "launch.py":
        return Line("launch", words[1:], current) if _is_ours(words[0]) else None
    if name == "mvit":
        return _of_mvit(words[1:], current)
    return _of_python(words[1:], current) if name.startswith("python") else None


def _of_python(words: Sequence[str], current: str) -> Line | None:
    left = iter(range(len(words)))
    for place in left:
        word, rest = words[place], words[place + 1 :]
        if word == "-m":
            return _of_mvit(rest[1:], current) if rest[:1] == ["mvit"] else None
        if not word.startswith("-"):
            return Line("launch", rest, current) if _is_ours(word) else None
        if word in TAKE_A_VALUE:
            next(left, None)
    return None


def _of_mvit(words: Sequence[str], current: str) -> Line:
    if words[:1] == ["launch"]:
        return Line("launch", words[1:], current)
    return Line("mvit", words, current)


def _is_ours(script: str) -> bool:
    """Whether it is this launch.py, not one of another project."""
    return Path(script).expanduser().resolve() == LAUNCHER
