"""A sweep as a person follows it: on a terminal a table that is drawn anew, a row per trial; plain lines elsewhere."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from time import monotonic as clock

from rich.console import Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from mvit import console
from mvit.console import PLAIN_EVERY_S
from mvit.parent.report.numbers import duration, in_words
from mvit.parent.report.table import Label
from mvit.parent.sweep.ranking import Values, ranked
from mvit.parent.sweep.trials import Trial
from mvit.rundir.ending import Outcome
from mvit.rundir.journal import JournalReader
from mvit.sweep_config import Objective

MOST_OF_A_STATE = 5
"""Rows of a table for trials of one state; the others are counted."""
ORDER = ("RUNNING", "FAILED", "KILLED", "PAUSED", "FINISHED", "waiting")
COLUMNS = {"loss": ("train/loss", "{:.3f}"), "acc@1": ("val/acc1", "{:.2f}"), "img/s": ("perf/images_per_s", "{:.0f}")}


@dataclass
class _Row:
    label: Label
    state: str = "waiting"
    total: int = 0
    steps_per_epoch: int = 1
    reader: JournalReader | None = None
    step: int = 0
    first: tuple[float, int] | None = None
    """When the first step was seen since it was started, and which."""
    latest: dict[str, float] = field(default_factory=dict[str, float])

    def look(self) -> None:
        before = self.step
        for entry in self.reader.entries() if self.reader else ():
            self.step = entry.get("step", self.step)
            self.latest.update(entry.get("metrics", {}))
        if self.step > before and self.first is None:
            self.first = (clock(), self.step)

    def number(self, column: str) -> str:
        key, form = COLUMNS[column]
        return form.format(self.latest[key]) if key in self.latest else ""

    @property
    def progress(self) -> str:
        if not self.step:
            return ""
        done, total = (round(steps / self.steps_per_epoch, 1) for steps in (self.step, self.total))
        return f"{done:g}/{total:g}"

    @property
    def left(self) -> str:
        """Time left at the pace since its first step."""
        if self.state != "RUNNING" or self.first is None:
            return ""
        began, step = self.first
        done = self.step - step
        return duration((clock() - began) / done * max(0, self.total - self.step)) if done > 0 else ""


class SweepView:
    """Follows the trials of a sweep, under labels that tell them apart."""

    def __init__(self, trials: Iterable[Trial], *, slots: int, objectives: Sequence[Objective]) -> None:
        self._rows = {trial.number: _Row(trial.label) for trial in trials}
        self._slots, self._objectives = slots, objectives
        self._values: dict[int, Values] = {}
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

    def recall(self, trial: Trial, status: str, values: Values) -> None:
        """A trial of an earlier time."""
        self._rows[trial.number] = _Row(trial.label, state=status)
        if values:
            self._values[trial.number] = values

    def started(self, trial: Trial, *, where: str, until_epoch: int | None = None) -> None:
        """A trial is executed from now on, to its end or to an epoch."""
        run, row = trial.run, self._rows.setdefault(trial.number, _Row(trial.label))
        word = "goes on" if row.step else "started"
        row.state, row.reader, row.first = "RUNNING", row.reader or JournalReader(run.folder.journal), None
        if run.config.task.kind == "train":
            row.total, row.steps_per_epoch = run.plan.last_step, run.plan.steps_per_epoch
            if until_epoch:
                row.total = min(row.total, until_epoch * row.steps_per_epoch)
        to = f" to epoch {until_epoch}" if until_epoch else ""
        console.say(f"mvit: {row.label}: {word}{where}{to}, {console.shown(run.folder.path)}")

    def ended(self, trial: Trial, outcome: Outcome, *, values: Values, after_epoch: int | None = None) -> None:
        """A trial has ended, or is paused after an epoch, with these values."""
        row = self._rows[trial.number]
        row.look()
        row.state = outcome.status
        if outcome.status in ("FINISHED", "PAUSED") and values:
            self._values[trial.number] = values
        after = f" after epoch {after_epoch}" if after_epoch else ""
        note = f": {outcome.failure.message}" if outcome.failure else f", {in_words(values)}" if values else ""
        console.say(f"mvit: {row.label}: {outcome.status}{after}{note}")

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
                    console.say(f"  {row.label}: epoch {row.progress}{numbers}")

    def table(self) -> RenderableType:
        """What a terminal shows at this moment: the trials that run first."""
        every = list(self._rows.values())  # this is drawn in a thread of its own
        counts = Counter(row.state for row in every)
        head = ", ".join(f"{counts[state]} {state}" for state in ORDER if counts[state])
        lines = [Text(f"{head}; {self._slots} slot{'' if self._slots == 1 else 's'}")]
        if best := ranked(dict(self._values), self._objectives):
            lines.append(Text(f"best: {self._rows[best[0]].label}, {in_words(self._values[best[0]])}"))
        swept = list(dict.fromkeys(name for row in every for name, _ in row.label.values)) or ["trial"]
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
        for column in (*swept, "state"):
            table.add_column(column, no_wrap=True)
        for column in ("epoch", *COLUMNS, "left"):
            table.add_column(column, justify="right", no_wrap=True)
        for state in ORDER:
            rows = [row for row in every if row.state == state]
            for row in rows[:MOST_OF_A_STATE]:
                values = dict(row.label.values) or {swept[0]: str(row.label)}
                numbers = (row.number(name) for name in COLUMNS)
                table.add_row(*(Text(values.get(name, "")) for name in swept), state, row.progress, *numbers, row.left)
            if len(rows) > MOST_OF_A_STATE:
                table.add_row(*("..." for _ in swept), f"{len(rows) - MOST_OF_A_STATE} more {state}")
        return Group(*lines, table)
