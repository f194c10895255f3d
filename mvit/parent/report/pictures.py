"""Pictures of a run, drawn from its folder: curves, classes, the time that its steps took."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# matplotlib's annotations leave their **kwargs untyped.

from __future__ import annotations

import statistics
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mvit.files import read_json
from mvit.parent.report import confusion
from mvit.rundir.frozen import Run
from mvit.rundir.journal import JournalReader, series_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_CLASSES = 40
"""Classes that are shown: the worst half, and the best."""
MAX_NAME = 24
FEWEST_STEPS = 10
"""Intervals between journal lines that say something of a distribution."""

Series = Mapping[str, Sequence[tuple[int, float]]]
"""Of each metric, its values by step."""


def draw_all(run: Run) -> None:
    """Write the pictures that the run gives into its folder. Raises what reading and drawing them raises."""
    entries = list(JournalReader(run.folder.journal).entries())
    series, intervals = series_of(entries), _intervals(entries)
    figures: dict[str, Callable[[], Figure]] = {}
    if len(series.get("val/acc1", ())) > 1 or len(series.get("train/loss", ())) > 1:
        figures["learning_curves"] = lambda: _curves(series)
    if len(intervals) >= FEWEST_STEPS:
        figures["step_times"] = lambda: _step_times(intervals, series)
    if run.folder.confusion.exists():
        counts: list[list[int]] = read_json(run.folder.confusion)["counts"]
        confusion.draw(counts, run.plan.dataset.class_names, run.folder.confusion_picture)
        figures["per_class_accuracy"] = lambda: _classes(counts, run.plan.dataset.class_names)
    for name, make in figures.items():
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Glyph .* missing from font")  # drawn as boxes
            make().savefig(run.folder.path / f"{name}.png")


def _intervals(entries: Sequence[Mapping[str, Any]]) -> list[float]:
    """Milliseconds of a step, between two lines of training."""
    intervals: list[float] = []
    before: tuple[int, float] | None = None
    for entry in entries:
        if "train/loss" not in entry.get("metrics", {}):
            before = None  # a compilation, an evaluation or a checkpoint lies between
            continue
        step, time = int(entry["step"]), float(entry["time"])
        if before and step > before[0]:
            intervals.append(1e3 * (time - before[1]) / (step - before[0]))
        before = step, time
    return intervals


def _figure(rows: int = 1, *, height: float = 4.0) -> tuple[Figure, list[Any]]:
    # Without pyplot, which looks for a display.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.0, height), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = [figure.add_subplot(rows, 1, row + 1) for row in range(rows)]
    for one in axes:
        one.spines[["top", "right"]].set_visible(False)
        one.grid(alpha=0.3)
        one.set_axisbelow(True)
    return figure, axes


def _curves(series: Series) -> Figure:
    figure, (loss, accuracy, rate) = _figure(3, height=8.0)
    names = (
        (loss, "loss", ("train/loss", "val/loss", "val/ema_loss")),
        (accuracy, "top-1 accuracy, %", ("val/acc1", "val/ema_acc1")),
        (rate, "learning rate", ("train/lr",)),
    )
    for axes, label, keys in names:
        for key in keys:
            if points := series.get(key):
                mark = "o" if key.startswith("val/") else None
                axes.plot(*zip(*points, strict=True), label=key, marker=mark, markersize=3, linewidth=1.2)
        axes.set_ylabel(label)
        if axes.lines:
            axes.legend(frameon=False)
    rate.set_xlabel("step")
    return figure


def _step_times(intervals: Sequence[float], series: Series) -> Figure:
    figure, (axes,) = _figure()
    median = statistics.median(intervals)
    axes.hist(intervals, bins=min(60, max(10, len(intervals) // 5)), color="tab:blue")
    axes.axvline(median, color="black", linewidth=1.0)
    compiled = series.get("perf/compile_s", [(0, 0.0)])[-1][1]
    apart = f"not in it: {compiled:.1f} s to compile, and evaluations" if compiled else "without evaluations"
    axes.set_title(f"median {median:.1f} ms a step; {apart}", loc="left")
    axes.set_xlabel("ms a step, between two lines of the journal")
    axes.set_ylabel("intervals")
    return figure


def _classes(counts: Sequence[Sequence[int]], class_names: Sequence[str]) -> Figure:
    shares = [100.0 * row[index] / max(1, sum(row)) for index, row in enumerate(counts)]
    order = sorted(range(len(shares)), key=lambda index: shares[index])
    left_out = max(0, len(order) - MOST_CLASSES)
    if left_out:
        order = order[: MOST_CLASSES // 2] + order[-(MOST_CLASSES // 2) :]
    figure, (axes,) = _figure(height=max(3.0, 0.22 * len(order) + 1.0))
    axes.barh(range(len(order)), [shares[index] for index in order], color="tab:blue")
    names = [class_names[index] for index in order]
    short = [name if len(name) <= MAX_NAME else f"{name[: MAX_NAME - 1]}…" for name in names]
    axes.set_yticks(range(len(order)), short, fontsize="small")
    for label in axes.get_yticklabels():
        label.set_parse_math(False)  # a class may be named $1
    axes.set_xlim(0, 100)
    axes.set_xlabel("correct, % of the class")
    mean = f"{statistics.fmean(shares):.2f} % on average of {len(shares)} classes"
    axes.set_title(f"{mean}{f'; the {left_out} in the middle are left out' if left_out else ''}", loc="left")
    return figure
