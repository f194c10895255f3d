"""Console: lines to standard output, and problems to standard error."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from rich.console import Console

from mvit.places import CHECKOUT
from mvit.program import IS_COMMAND, LAUNCH, MVIT


class _Console(Console):
    """Falls silent when its reader is gone (`| head`), where rich would exit in the middle of a run.

    Rich sees to NO_COLOR, and to terminals that know no colours.
    """

    @property
    def is_terminal(self) -> bool:
        """Whether lines can be drawn anew. FORCE_COLOR, which rich takes for a terminal, puts no bar into a log."""
        return not self.file.closed and self.file.isatty()

    def on_broken_pipe(self) -> None:
        self.quiet = True
        sys.stdout = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115  open until the end


console = _Console(highlight=False, soft_wrap=True)
PLAIN_EVERY_S = 10.0
"""Seconds between progress lines where there is no terminal for a bar."""


def say(line: str) -> None:
    """Print a line to standard output; a full disk under it costs the line."""
    with suppress(OSError):
        console.print(line, markup=False)


def hint(line: str) -> None:
    """Tell a person at a terminal what to do next; what is piped or saved holds no such line."""
    if console.is_terminal:
        say(f"mvit: {line}")


def complain(lines: Iterable[str]) -> None:
    """Print problems to standard error, one line each: `path: value rule; remedy`."""
    for line in lines:
        with suppress(OSError):  # a pipe whose reader is gone
            print(f"mvit: {line}", file=sys.stderr)


def pairs(rows: Iterable[tuple[str, str]]) -> None:
    """Print labels and values in two columns."""
    for what, value in rows:
        say(pair(what, value))


def pair(what: str, value: str) -> str:
    """A label and its value, as a line of `pairs`."""
    return f"  {what:<13} {value}"


def shown(path: Path) -> str:
    """The path as it works in the current directory: relative if below it, otherwise absolute."""
    absolute = path.resolve() if ".." in path.parts else path.absolute()
    return os.path.relpath(absolute) if absolute.is_relative_to(Path.cwd()) else str(absolute)


def mvit_command(*words: str | Path) -> str:
    """A command of the program that can be pasted in the current directory."""
    return f"{MVIT} {shlex.join(shown(word) if isinstance(word, Path) else word for word in words)}"


def launch_command(*overrides: str) -> str:
    """A launch that can be pasted in the current directory."""
    launch = shlex.join(["python", shown(CHECKOUT / "launch.py")]) if CHECKOUT and not IS_COMMAND else LAUNCH
    return " ".join([launch, *map(shlex.quote, overrides)])
