"""A run as a person follows it: a progress bar or plain lines, and a line for each evaluation."""

from __future__ import annotations

import time
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from mvit.console import PLAIN_EVERY_S, complain, console, say
from mvit.parent.verdict import disk_trouble
from mvit.rundir.frozen import Run
from mvit.rundir.journal import JournalReader
from mvit.rundir.status import Stage, read_workers


class ProgressView:
    """Follows the journal: a bar on a terminal, a line every ten seconds elsewhere; both with a line per evaluation."""

    def __init__(self, run: Run) -> None:
        folder = self.folder = run.folder
        self.total = run.plan.last_step if run.config.task.kind == "train" else 0
        self.reader = JournalReader(folder.journal)
        self.latest: dict[str, float] = {}
        for entry in self.reader.entries():  # of a resumed run: known, and said before
            self.latest.update(entry.get("metrics", {}))
        self.stage = Stage.START
        self.stopping = False
        self.trouble: str | None = None
        self.spoken = self.since = time.monotonic()
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[numbers]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
        )
        self.bar = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self.task = self.bar.add_task("start", total=self.total or None, numbers="")

    def __enter__(self) -> ProgressView:
        self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()

    def say(self, line: str) -> None:
        say(line)

    def complain(self, line: str) -> None:
        complain([line])

    def look(self) -> None:
        folder = self.folder
        if folder.stop.exists() and not self.stopping:
            say("mvit: stopping, after a checkpoint of the current step; press Ctrl-C again to stop immediately")
        self.stopping = folder.stop.exists()
        trouble = disk_trouble(folder.path)
        if trouble and not self.trouble:
            complain([f"cannot write to {folder.path}: {trouble}; the run goes on without"])
        self.trouble = trouble
        for entry in self.reader.entries():
            self._take(entry)
        workers = read_workers(folder)
        if not workers:
            return
        slowest = min(workers, key=lambda status: status.step)
        if not self.bar.disable:
            self.bar.update(self.task, description=slowest.stage.value, completed=slowest.step, numbers=self._numbers())
            return
        changed = slowest.stage != self.stage and slowest.stage in (Stage.DATA, Stage.COMPILE)
        now = time.monotonic()
        if changed:
            self.stage, self.since = slowest.stage, now
        if changed or now - self.spoken > PLAIN_EVERY_S:
            self.spoken = now
            step = f"{slowest.step}/{self.total} {self._numbers()}" if slowest.step else f"{now - self.since:.0f} s"
            say(f"  {slowest.stage}{'' if changed else f' {step}'}".rstrip())

    def _take(self, entry: dict[str, Any]) -> None:
        metrics = entry.get("metrics", {})
        self.latest.update(metrics)
        match entry.get("event"):
            case "compiled":
                say(f"  compiled {entry['graph']} in {entry['seconds']:.1f} s")
            case "resumed":
                say(f"  resumed after step {entry['step']}")
                for line in entry["damaged"]:
                    say(f"  skipped: {line}")
            case "checkpoint_failed":
                complain([f"the checkpoint of step {entry['step']} was not written: {entry['reason']}"])
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

    def _numbers(self) -> str:
        known = (
            ("loss", "train/loss", "{:.3f}"),
            ("acc@1", "val/acc1", "{:.2f} %"),
            ("img/s", "perf/images_per_s", "{:.0f}"),
        )
        return "  ".join(f"{name} {form.format(self.latest[key])}" for name, key, form in known if key in self.latest)
