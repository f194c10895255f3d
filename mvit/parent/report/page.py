"""A table as one HTML page that needs no network: it can be sent, opened from a disk, and sorted by a click."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

from mvit.parent.report.grid import Grid

STYLE = """
body { font: 15px/1.4 system-ui, sans-serif; margin: 2em; color: #1b1b1b; background: #fff; }
table { border-collapse: collapse; }
th, td { padding: .3em .8em; border-bottom: 1px solid #ddd; text-align: left; white-space: nowrap; }
th { cursor: pointer; border-bottom: 2px solid #888; }
.number { text-align: right; font-variant-numeric: tabular-nums; }
figure { display: inline-block; margin: 1em 1em 0 0; }
img { max-width: 32em; }
@media (prefers-color-scheme: dark) { body { color: #e6e6e6; background: #161616; } th, td { border-color: #444; } }
"""
SCRIPT = """
for (const head of document.querySelectorAll('th')) head.addEventListener('click', () => {
  const body = document.querySelector('tbody'), column = head.cellIndex;
  const falls = head.dataset.order !== 'falls';
  for (const other of document.querySelectorAll('th')) delete other.dataset.order;
  head.dataset.order = falls ? 'falls' : 'rises';
  const text = row => row.cells[column].textContent, number = row => parseFloat(text(row));
  const compare = (a, b) => {
    const [x, y] = [number(a), number(b)], missing = Number.isNaN(x) - Number.isNaN(y);
    const order = Number.isNaN(x) ? text(a).localeCompare(text(b)) : x - y;
    return missing || (falls ? -order : order);
  };
  body.append(...[...body.rows].sort(compare));
});
"""


def page(title: str, grid: Grid, *, pictures: Iterable[tuple[str, Path]] = (), below: Sequence[str] = ()) -> str:
    """The table, lines of plain text below it, and PNG files with their captions, as far as they exist."""
    heads = "".join(f"<th{_class(grid, heading)}>{escape(heading)}</th>" for heading in grid.headings)
    rows = "\n".join(f"<tr>{_cells(grid, grid.cells(row))}</tr>" for row in grid.rows)
    figures = "\n".join(_figure(caption, file) for caption, file in pictures if file.is_file())
    text = f"<pre>{escape(chr(10).join(below))}</pre>" if below else ""
    return (
        f'<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n<title>{escape(title)}</title>\n'
        f"<style>{STYLE}</style>\n<h1>{escape(title)}</h1>\n"
        f"<table>\n<thead><tr>{heads}</tr></thead>\n<tbody>\n{rows}\n</tbody>\n</table>\n"
        f"{text}\n{figures}\n<script>{SCRIPT}</script>\n</html>"
    )


def _cells(grid: Grid, cells: Sequence[str]) -> str:
    return "".join(
        f"<td{_class(grid, heading)}>{escape(cell)}</td>" for heading, cell in zip(grid.headings, cells, strict=True)
    )


def _class(grid: Grid, heading: str) -> str:
    return ' class="number"' if heading in grid.numbers else ""


def _figure(caption: str, file: Path) -> str:
    data = base64.b64encode(file.read_bytes()).decode()
    image = f'<img alt="{escape(caption)}" src="data:image/png;base64,{data}">'
    return f"<figure>{image}<figcaption>{escape(caption)}</figcaption></figure>"
