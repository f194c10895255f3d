"""Lines to a person: standard output, and standard error for what is wrong."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from rich.console import Console


class _Console(Console):
    """Falls silent when its reader is gone (`| head`), where rich would end the process in the middle of a run."""

    def on_broken_pipe(self) -> None:
        self.quiet = True
        sys.stdout = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115  open until the end


console = _Console(highlight=False, soft_wrap=True)
PLAIN_EVERY_S = 10.0
"""Between two lines about the same work, where there is no terminal for a bar."""


def say(line: str) -> None:
    """A line to standard output; a disk that is full under it costs the line."""
    with suppress(OSError):
        console.print(line, markup=False)


def complain(lines: Iterable[str]) -> None:
    """Lines to standard error, nothing else on them: `path: value rule; remedy`."""
    for line in lines:
        with suppress(OSError):  # a pipe whose reader is gone
            print(f"mvit: {line}", file=sys.stderr)


def pairs(rows: Iterable[tuple[str, str]]) -> None:
    """What and value, in two columns."""
    for what, value in rows:
        say(f"  {what:<13} {value}")


def shown(path: Path) -> str:
    """The path as it works where the person stands: relative below the working directory, else absolute."""
    absolute = path.resolve() if ".." in path.parts else path.absolute()
    return os.path.relpath(absolute) if absolute.is_relative_to(Path.cwd()) else str(absolute)


def mvit_command(*words: str | Path) -> str:
    """A command of `python -m mvit` that can be pasted where the person stands."""
    return shlex.join(["python", "-m", "mvit", *(shown(word) if isinstance(word, Path) else word for word in words)])
