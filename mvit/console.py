"""Lines to a person: standard output, and standard error for what is wrong."""

from __future__ import annotations

import os
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
    """A line to standard output."""
    console.print(line, markup=False)


def complain(lines: Iterable[str]) -> None:
    """Lines to standard error, nothing else on them: `path: value rule; remedy`."""
    for line in lines:
        with suppress(OSError):  # a pipe whose reader is gone
            print(f"mvit: {line}", file=sys.stderr)


def pairs(rows: Iterable[tuple[str, str]]) -> None:
    """What and value, in two columns."""
    for what, value in rows:
        console.print(f"  {what:<13} {value}", markup=False)


def result_table(rows: list[dict[str, str]]) -> None:
    """Result rows under the headings of the published table, as Markdown; a row is one line, however wide."""
    lines = [list(rows[0]), *(list(row.values()) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    lines.insert(1, ["-" * width for width in widths])
    for line in lines:
        say("| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |")
