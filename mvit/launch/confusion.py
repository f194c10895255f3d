"""The confusion matrix of an evaluation as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

NUMBERS_UP_TO = 20
NAMES_UP_TO = 50


def draw(counts: Sequence[Sequence[int]], class_names: Sequence[str], out: Path) -> None:
    """Rows are true classes, columns predicted ones; shade is the share of the row. Writes a PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # half a second
    from matplotlib.figure import Figure

    table = np.asarray(counts, dtype=np.int64)
    total = table.sum()
    share = table / np.maximum(table.sum(axis=1, keepdims=True), 1)
    size = len(class_names)
    figure = Figure(figsize=(6.4, 6.0), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.imshow(share, cmap="Blues", vmin=0.0, vmax=1.0)
    axes.set_title(f"{100 * np.trace(table) / max(total, 1):.2f} % of {total} right")
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    if size <= NAMES_UP_TO:
        axes.set_xticks(range(size), class_names, rotation=90 if max(map(len, class_names)) > 2 else 0)
        axes.set_yticks(range(size), class_names)
    if size <= NUMBERS_UP_TO:
        for row, column in zip(*np.nonzero(table), strict=True):
            shade = "white" if share[row, column] > 0.5 else "black"
            axes.text(column, row, str(table[row, column]), ha="center", va="center", color=shade, fontsize=9)
    figure.savefig(out)
