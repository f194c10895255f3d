"""Rows of text under headings, for a terminal, a document or a program."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from rich.cells import cell_len

GAP = "  "
SHORTEST = 8
"""Characters that are left of a word that is cut."""


@dataclass(frozen=True)
class Grid:
    """A table. A row that lacks a heading has an empty cell there."""

    headings: Sequence[str]
    rows: Sequence[Mapping[str, str]]
    numbers: Collection[str] = ()
    """Headings of columns that are aligned to the right."""
    may_go: Sequence[str] = ()
    """Headings that a terminal which is too narrow can do without, the first one first."""

    def without_empty_columns(self) -> Grid:
        kept = [heading for heading in self.headings if any(row.get(heading) for row in self.rows)]
        return replace(self, headings=kept)

    def cells(self, row: Mapping[str, str]) -> list[str]:
        return [row.get(heading, "") for heading in self.headings]

    def markdown(self) -> str:
        escaped = [[cell.replace("|", "\\|") for cell in self.cells(row)] for row in self.rows]
        columns = list(zip(self.headings, *escaped, strict=True))
        widths = [max(3, *map(cell_len, column)) for column in columns]
        aligned = [heading in self.numbers for heading in self.headings]

        def line(cells: Sequence[str]) -> str:
            return f"| {' | '.join(map(_padded, cells, widths, aligned))} |"

        rule = ["-" * (width - 1) + ":" if right else "-" * width for width, right in zip(widths, aligned, strict=True)]
        return "\n".join([line(self.headings), line(rule), *map(line, escaped)])

    def csv(self) -> str:
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerows([list(self.headings), *map(self.cells, self.rows)])
        return out.getvalue().rstrip("\n")

    def json(self) -> str:
        rows = [dict(zip(self.headings, self.cells(row), strict=True)) for row in self.rows]
        return json.dumps(rows, indent=1, ensure_ascii=False)

    def fitted(self, width: int) -> Grid:
        """The table in so many characters: without those columns that `may_go`, then with its widest words cut."""
        headings = list(self.headings)
        leaving = [heading for heading in self.may_go if heading in headings]
        while leaving and sum(self._widths(headings)) + len(GAP) * (len(headings) - 1) > width:
            headings.remove(leaving.pop(0))
        widths = self._widths(headings)
        excess = sum(widths) + len(GAP) * (len(headings) - 1) - width
        if excess <= 0:
            return replace(self, headings=headings)
        words = [index for index, heading in enumerate(headings) if heading not in self.numbers]
        widest = max(words, key=lambda index: widths[index])
        heading, room = headings[widest], max(SHORTEST, widths[widest] - excess)
        rows = [{**row, heading: _cut(row.get(heading, ""), room)} for row in self.rows]
        return replace(self, headings=headings, rows=rows)

    def lines(self) -> Iterator[str]:
        """As text in columns."""
        widths = self._widths(self.headings)
        for cells in (list(self.headings), *map(self.cells, self.rows)):
            columns = zip(cells, widths, self.headings, strict=True)
            yield GAP.join(_padded(cell, width, heading in self.numbers) for cell, width, heading in columns).rstrip()

    def _widths(self, headings: Sequence[str]) -> list[int]:
        return [max(map(cell_len, (heading, *(row.get(heading, "") for row in self.rows)))) for heading in headings]


def _padded(text: str, width: int, right: bool) -> str:
    space = " " * (width - cell_len(text))
    return space + text if right else text + space


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 1]}…"
