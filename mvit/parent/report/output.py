"""Output of tables, in the format that was asked for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from mvit import console
from mvit.parent.report.formats import Format
from mvit.parent.report.grid import Grid
from mvit.parent.report.page import page


def show(
    grid: Grid,
    form: Format,
    *,
    title: str,
    none: str,
    below: Sequence[str] = (),
    pictures: Iterable[tuple[str, Path]] = (),
) -> None:
    """Print a table; on a terminal no wider than that is, with the lines `below` it.

    `none` is said of one without rows. A page has `title`, the lines and the pictures as well.
    """
    if not grid.rows:
        console.complain([none])
    match form:
        case "markdown":
            print(grid.markdown())
        case "csv":
            print(grid.csv())
        case "json":
            print(grid.json())
        case "html":
            print(page(title, grid, pictures=pictures, below=below))
        case "terminal":
            _to_terminal(grid)
            for line in below:
                print(line)


def _to_terminal(grid: Grid) -> None:
    if not grid.rows:
        return
    shown = grid.fitted(console.console.width) if console.console.is_terminal else grid
    for line in shown.lines():
        print(line)
    if missing := [heading for heading in grid.headings if heading not in shown.headings]:
        console.complain([f"too wide for this terminal: {', '.join(missing)}; --format csv shows all"])
