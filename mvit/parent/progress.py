"""A run as a person follows it: a bar on a terminal, plain lines elsewhere, and a line for each evaluation."""

from __future__ import annotations

import sys
from time import monotonic as clock
from typing import Any

from rich.console import RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from mvit.console import PLAIN_EVERY_S, complain, console, say, shown
from mvit.parent.report.estimate import PastRuns
from mvit.parent.report.numbers import duration
from mvit.parent.verdict import disk_trouble
from mvit.parent.worker_logs import WorkerLogs
from mvit.rundir.frozen import Run
from mvit.rundir.journal import JournalReader
from mvit.rundir.status import Stage, read_workers
from mvit.rundir.stop import read_stop

PREPARING = (Stage.START, Stage.JOIN, Stage.DATA, Stage.BUILD, Stage.COMPILE)
WIDEST_BAR = 40
NARROWEST_BAR = 8
"""Columns; a terminal with less room for it shows the numbers alone."""


class ProgressView:
    """Follows the journal and the workers' statuses.

    On a terminal, one line that is drawn anew: while stepping, a bar with the time left; before the first step and for
    an evaluation alone, the stage with its elapsed time and, for compilation, what past runs took.
    """

    def __init__(self, run: Run, *, past: PastRuns | None) -> None:
        folder = self.folder = run.folder
        self.total, self.counted = _steps(run)
        self.compile_s = past.compile_all_s(graph.name for graph in run.plan.graphs) if past else None
        self.reader = JournalReader(folder.journal)
        self.logs = WorkerLogs(folder) if run.config.verbose else None
        self.latest: dict[str, float] = {}
        for entry in self.reader.entries():  # of a resumed run: they were shown before
            self.latest.update(entry.get("metrics", {}))
        self.stage = Stage.START
        self.step = 0
        self.first: tuple[int, float] | None = None
        """The first step of this attempt that was seen, and when: the pace is counted from there."""
        self.stopping = False
        self.trouble: str | None = None
        self.spoken = self.since = self.began = clock()
        self.live = Live(get_renderable=self.line, console=console, transient=True, redirect_stderr=sys.stderr.isatty())

    def __enter__(self) -> ProgressView:
        if console.is_terminal:
            self.live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.live.stop()

    def say(self, line: str) -> None:
        say(line)

    def complain(self, line: str) -> None:
        complain([line])

    def look(self) -> None:
        folder = self.folder
        wanted = read_stop(folder) if folder.stop.exists() else None
        is_stopping = wanted is not None and wanted.after_epoch is None
        if is_stopping and not self.stopping:
            say("mvit: stopping, after a checkpoint of the current step; press Ctrl-C again to stop immediately")
        self.stopping = is_stopping
        trouble = disk_trouble(folder.path)
        if trouble and not self.trouble:
            complain([f"cannot write to {shown(folder.path)}: {trouble}; the run continues"])
        self.trouble = trouble
        for process, line in self.logs.news() if self.logs else ():
            say(f"  {process} | {line}")
        for entry in self.reader.entries():
            self._take(entry)
        workers = read_workers(folder)
        if not workers:
            return
        slowest = min(workers, key=lambda status: status.step)
        before, now = self.stage, clock()
        self._move(slowest.stage, slowest.step, now)
        if not console.is_terminal:
            self._say_plainly(has_changed=self.stage is not before, now=now)

    def _move(self, stage: Stage, step: int, now: float) -> None:
        if stage is not self.stage:
            self.stage, self.since = stage, now
            if stage in PREPARING:  # of another attempt
                self.first = None
        self.step = step
        if stage is self.counted and self.first is None and step > 0:
            self.first = step, now

    def _say_plainly(self, *, has_changed: bool, now: float) -> None:
        says_stage = has_changed and self.stage in (Stage.DATA, Stage.COMPILE)
        if says_stage:
            say(f"  {self.stage}")
        elif now - self.spoken > PLAIN_EVERY_S:
            where = (
                f"{self.step}/{self.total} {self._numbers()}"
                if self.step and self.total
                else f"{now - self.since:.0f} s"
            )
            say(f"  {self.stage} {where}".rstrip())
        else:
            return
        self.spoken = now

    def _take(self, entry: dict[str, Any]) -> None:
        metrics = entry.get("metrics", {})
        self.latest.update(metrics)
        match entry.get("event"):
            case "compiled":
                verb = "loaded" if entry["cached"] else "compiled"
                say(f"  {verb} {entry['graph']} in {entry['seconds']:.1f} s")
            case "measured":
                say(f"  {entry['graph']}: {entry['step_ms']:.2f} ms/step, {entry['images_per_s']:.2f} img/s")
            case "resumed":
                say(f"  resumed after step {entry['step']}")
                for line in entry["damaged"]:
                    say(f"  skipped: {line}")
            case "checkpoint_failed":
                complain([f"the checkpoint of step {entry['step']} was not written: {entry['reason']}"])
            case "compile_cache_failed":
                complain([f"the compile cache {entry['reason']}"])
            case "not_written":
                complain([f"{entry['file']} was not written: {entry['reason']}"])
            case "initialised":
                new = f", new: {', '.join(entry['new'])}" if entry["new"] else ""
                say(f"  {entry['weights']} weights of {entry['source']}{new}")
            case _:
                pass
        if "val/acc1" in metrics and self.total:
            ema = f"EMA {metrics['val/ema_acc1']:.2f} %  " if "val/ema_acc1" in metrics else ""
            speed = f"  {metrics['perf/images_per_s']:.0f} img/s" if "perf/images_per_s" in metrics else ""
            loss = f"loss {self.latest['train/loss']:.4f}  " if "train/loss" in self.latest else ""
            say(
                f"  epoch {entry['epoch']:>3}  {loss}"
                f"val loss {metrics['val/loss']:.4f}  acc@1 {metrics['val/acc1']:.2f} %  "
                f"{ema}best {metrics['best/val_acc1']:.2f} %{speed}"
            )

    def line(self) -> RenderableType:
        """What a terminal shows at this moment."""
        now = clock()
        if self.first is None:
            return Text(f"  {self.stage}  {self._waiting(now)}", no_wrap=True, overflow="ellipsis")
        head = f"  {self.stage} {self.step}/{self.total}"
        tail = "  ".join(filter(None, (self._numbers(), f"{duration(now - self.began)} elapsed", self._left(now))))
        room = min(WIDEST_BAR, console.width - len(head) - len(tail) - 3)
        if room < NARROWEST_BAR:
            return Text(f"{head}  {tail}", no_wrap=True, overflow="ellipsis")
        line = Table.grid(padding=(0, 1, 0, 0))
        line.add_row(head, ProgressBar(total=self.total, completed=self.step, width=room), tail)
        return line

    def _waiting(self, now: float) -> str:
        """Elapsed time of a stage before the first step: nobody knows yet what is left."""
        elapsed = now - self.since
        if self.stage is not Stage.COMPILE or self.compile_s is None:
            return duration(elapsed)
        usual = max(1, round(self.compile_s))
        return f"{duration(elapsed)}{' of' if elapsed <= usual else ', usually'} about {duration(usual)}"

    def _left(self, now: float) -> str:
        """Time left at the pace of this attempt, evaluations included."""
        step, began = self.first or (self.step, now)
        done = self.step - step
        return f"{duration((now - began) / done * (self.total - self.step))} left" if done > 0 else ""

    def _numbers(self) -> str:
        numbers = (
            ("loss", "train/loss", "{:.3f}"),
            ("acc@1", "val/acc1", "{:.2f} %"),
            ("img/s", "perf/images_per_s", "{:.0f}"),
        )
        return "  ".join(f"{name} {form.format(self.latest[key])}" for name, key, form in numbers if key in self.latest)


def _steps(run: Run) -> tuple[int, Stage | None]:
    """How many steps are counted, and the stage in which that is done; 0 for a task that shows its stages alone."""
    match run.config.task.kind:
        case "train":
            return run.plan.last_step, Stage.STEP
        case "predict":
            return run.plan.eval_steps, Stage.EVALUATE
        case _:
            return 0, None
