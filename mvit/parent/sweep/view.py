"""A sweep as a person follows it: on a terminal a table that is drawn anew, a row per trial; plain lines elsewhere."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from time import monotonic as clock

from rich.console import Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from mvit import console
from mvit.console import PLAIN_EVERY_S
from mvit.rundir.frozen import Run
from mvit.rundir.journal import JournalReader

MOST_OF_A_STATE = 5
"""Rows of a table for trials of one state; the others are counted."""
ORDER = ("RUNNING", "FAILED", "KILLED", "PAUSED", "FINISHED", "waiting")
COLUMNS = {"loss": ("train/loss", "{:.3f}"), "acc@1": ("val/acc1", "{:.2f}"), "img/s": ("perf/images_per_s", "{:.0f}")}


@dataclass
class _Row:
    label: str
    state: str = "waiting"
    total: int = 0
    reader: JournalReader | None = None
    step: int = 0
    latest: dict[str, float] = field(default_factory=dict[str, float])

    def look(self) -> None:
        for entry in self.reader.entries() if self.reader else ():
            self.step = entry.get("step", self.step)
            self.latest.update(entry.get("metrics", {}))

    def number(self, column: str) -> str:
        key, form = COLUMNS[column]
        return form.format(self.latest[key]) if key in self.latest else ""

    @property
    def progress(self) -> str:
        return f"{self.step}/{self.total}" if self.total and self.step else ""


class SweepView:
    """Follows the trials of a sweep, by their numbers, under labels that tell them apart."""

    def __init__(self, labels: Mapping[int, str]) -> None:
        self._rows = {number: _Row(label) for number, label in labels.items()}
        self._spoken = clock()
        self._live = Live(
            get_renderable=self.table,
            console=console.console,
            transient=True,
            redirect_stderr=sys.stderr.isatty(),
            vertical_overflow="ellipsis",
        )

    def __enter__(self) -> SweepView:
        if console.console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def started(self, number: int, run: Run, *, where: str) -> None:
        """A trial is executed from now on."""
        row = self._rows[number]
        row.state, row.reader = "RUNNING", JournalReader(run.folder.journal)
        row.total = run.plan.last_step if run.config.task.kind == "train" else 0
        console.say(f"mvit: {row.label}: started{where}, {console.shown(run.folder.path)}")

    def ended(self, number: int, status: str, *, note: str) -> None:
        """A trial has ended."""
        row = self._rows[number]
        row.look()
        row.state, row.reader = status, None
        console.say(f"mvit: {row.label}: {status}{note}")

    def look(self) -> None:
        """Called several times a second."""
        running = [row for row in self._rows.values() if row.state == "RUNNING"]
        for row in running:
            row.look()
        if not console.console.is_terminal and clock() - self._spoken > PLAIN_EVERY_S:
            self._spoken = clock()
            for row in running:
                numbers = "".join(f"  {name} {row.number(name)}" for name in COLUMNS if row.number(name))
                if row.progress:
                    console.say(f"  {row.label}: step {row.progress}{numbers}")

    def table(self) -> RenderableType:
        """What a terminal shows at this moment: the trials that run first."""
        counts = Counter(row.state for row in self._rows.values())
        head = ", ".join(f"{counts[state]} {state}" for state in ORDER if counts[state])
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
        for column in ("trial", "state", "step", *COLUMNS):
            table.add_column(column, justify="left" if column in ("trial", "state") else "right", no_wrap=True)
        for state in ORDER:
            rows = [row for row in self._rows.values() if row.state == state]
            for row in rows[:MOST_OF_A_STATE]:
                table.add_row(row.label, state, row.progress, *(row.number(name) for name in COLUMNS))
            if len(rows) > MOST_OF_A_STATE:
                table.add_row(f"... and {len(rows) - MOST_OF_A_STATE} more", state)
        return Group(Text(head), table)
