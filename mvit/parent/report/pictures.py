"""Pictures of a run, drawn from its folder: curves, classes, confidence, errors, the time that its steps took."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# matplotlib's annotations leave their **kwargs untyped.

from __future__ import annotations

import statistics
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mvit.data.dataset import open_splits
from mvit.data.sample import File, Sample
from mvit.files import read_json
from mvit.parent.report import confusion
from mvit.rundir.answers import Answer, read_answers
from mvit.rundir.frozen import Run
from mvit.rundir.journal import JournalReader, series_of
from mvit.rundir.predictions import BINS, Predictions, calibration_error, read_predictions

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_CLASSES = 40
"""Classes that are shown: the worst half, and the best."""
MAX_NAME = 24
MAX_ANSWERS = 20
"""Images of a prediction that are shown."""
MAX_WRONG = 20
"""Images that are shown with the class they were taken for."""
PER_ROW = 5
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
    if run.folder.predictions.exists():
        predictions = read_predictions(run.folder.predictions)
        figures["reliability"] = lambda: _reliability(predictions)
        if mistakes := _most_confident_mistakes(predictions):
            figures["wrong_images"] = lambda: _wrong(run, mistakes)
    if run.folder.answers.exists():
        answers = [answer for answer in islice(read_answers(run.folder), MAX_ANSWERS) if answer.error is None]
        if answers:
            figures["answers"] = lambda: _answered(run, answers)
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


def _canvas(height: float) -> Figure:
    # Without pyplot, which looks for a display.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.0, height), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _figure(rows: int = 1, *, height: float = 4.0) -> tuple[Figure, list[Any]]:
    figure = _canvas(height)
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
    axes.set_yticks(range(len(order)), [_short(class_names[index]) for index in order], fontsize="small")
    for label in axes.get_yticklabels():
        label.set_parse_math(False)  # a class may be named $1
    axes.set_xlim(0, 100)
    axes.set_xlabel("correct, % of the class")
    mean = f"{statistics.fmean(shares):.2f} % on average of {len(shares)} classes"
    axes.set_title(f"{mean}{f'; the {left_out} in the middle are left out' if left_out else ''}", loc="left")
    return figure


def _reliability(predictions: Predictions) -> Figure:
    """Accuracy by confidence, and how many images each bin has (Guo et al., arXiv 1706.04599, figure 1)."""
    figure, (accuracy, share) = _figure(2, height=7.0)
    reliability = predictions.reliability()
    centres = [100.0 * (index + 0.5) / BINS for index in range(BINS)]
    filled = [index for index in range(BINS) if reliability[0][index]]
    images = [float(reliability[0][index]) for index in filled]
    hits = [100.0 * float(reliability[2][index]) / count for index, count in zip(filled, images, strict=True)]
    sure = [100.0 * float(reliability[1][index]) / count for index, count in zip(filled, images, strict=True)]
    accuracy.bar([centres[index] for index in filled], hits, width=95.0 / BINS, color="tab:blue", label="correct")
    accuracy.plot(sure, sure, color="black", marker="o", markersize=3, linewidth=1.0, label="perfectly calibrated")
    accuracy.set_title(f"expected calibration error {calibration_error(reliability):.2f} %", loc="left")
    accuracy.set_ylabel("correct, %")
    accuracy.set_ylim(0, 100)
    accuracy.legend(frameon=False, loc="upper left")
    share.bar(centres, reliability[0], width=95.0 / BINS, color="tab:gray")
    share.set_ylabel("images")
    for axes in (accuracy, share):
        axes.set_xlim(0, 100)
    share.set_xlabel("confidence, %")
    return figure


@dataclass(frozen=True)
class _Mistake:
    """An image, by its place in the held-out set, and what it was taken for."""

    place: int
    label: int
    taken_for: int
    confidence: float


def _most_confident_mistakes(predictions: Predictions) -> list[_Mistake]:
    confidence, classes = predictions.confidence()
    places = (classes != predictions.labels).nonzero()[0]
    mistakes = [
        _Mistake(int(place), int(predictions.labels[place]), int(classes[place]), float(confidence[place]))
        for place in places
    ]
    return sorted(mistakes, key=lambda mistake: -mistake.confidence)[:MAX_WRONG]


def _wrong(run: Run, mistakes: Sequence[_Mistake]) -> Figure:
    """The images as they are stored, each with its class and the one it was taken for."""
    _, source = open_splits(run.config.data, facts=run.plan.dataset, index=run.folder.data_index)
    names, images = run.plan.dataset.class_names, f"{run.plan.dataset.num_val:,} images"
    title = f"most confidently wrong of {images}: the class, and what it was taken for"
    tiles: list[tuple[Sample, str]] = []
    for mistake in mistakes:
        taken_for = f"as {_short(names[mistake.taken_for])}, {100.0 * mistake.confidence:.1f} %"
        tiles.append((source.sample(mistake.place), f"{_short(names[mistake.label])}\n{taken_for}"))
    return _tiles(title, tiles)


def _answered(run: Run, answers: Sequence[Answer]) -> Figure:
    """The first images of a prediction, each with its most probable class."""
    tiles: list[tuple[Sample, str]] = []
    for answer in answers:
        first, name = answer.classes[0], _short(Path(answer.image).name)
        tiles.append((File(answer.image), f"{name}\n{_short(first.name)}, {100.0 * first.probability:.1f} %"))
    return _tiles(f"the first of {run.plan.dataset.num_val:,} images, and the class of each", tiles)


def _tiles(title: str, tiles: Sequence[tuple[Sample, str]]) -> Figure:
    """Images in a grid, each under its caption."""
    import numpy as np

    rows = -(-len(tiles) // PER_ROW)
    figure = _canvas(1.0 + 2.0 * rows)
    figure.suptitle(title, x=0.01, ha="left")
    for number, (sample, caption) in enumerate(tiles):
        axes = figure.add_subplot(rows, PER_ROW, number + 1)
        with sample.open() as picture:
            picture.thumbnail((256, 256))
            axes.imshow(np.asarray(picture.convert("RGB")))
        axes.set_title(caption, fontsize="small", parse_math=False)  # a class may be named $1
        axes.set_axis_off()
    return figure


def _short(name: str) -> str:
    return name if len(name) <= MAX_NAME else f"{name[: MAX_NAME - 1]}…"
