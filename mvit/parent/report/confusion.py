"""The confusion matrix as a picture."""

# pyright: reportUnknownMemberType=false
# matplotlib's annotations leave their **kwargs untyped.

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

MAX_NUMBERED = 20
"""Most classes whose cells hold their number."""
MAX_LABELLED = 50
"""Most classes whose names stand on the axes."""
MAX_NAME = 24


def draw(counts: list[list[int]], class_names: Sequence[str], out: Path) -> None:
    """Write a PNG. Rows are true classes, columns predictions; colour is the share of the true class."""
    # Loaded here, since a run loads them at its end or not at all; without pyplot, which looks for a display.
    import numpy as np
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.colors import PowerNorm
    from matplotlib.figure import Figure

    cells = np.array(counts, np.int64)
    classes = len(class_names)
    assert cells.shape == (classes, classes), f"{cells.shape} counts for {classes} classes"
    of_class = cells.sum(axis=1, keepdims=True)
    share = cells / np.maximum(of_class, 1)
    total = int(cells.sum())

    numbered, labelled = classes <= MAX_NUMBERED, classes <= MAX_LABELLED
    names = [name if len(name) <= MAX_NAME else name[: MAX_NAME - 1] + "…" for name in class_names]
    side = max(4.5, 0.5 * classes) if numbered else 9.0
    figure = Figure(figsize=(side + 2.0, side + 1.0), dpi=160, layout="constrained")
    axes = figure.add_subplot()
    # The root lifts rare confusions out of the white, beside a diagonal near 1.
    image = axes.imshow(share, cmap="Blues", norm=PowerNorm(0.5, vmin=0.0, vmax=1.0), interpolation="nearest")
    bar = figure.colorbar(image, ax=axes, shrink=0.8, ticks=[0.0, 0.01, 0.05, 0.2, 0.5, 1.0])
    bar.ax.set_yticklabels(["0", "1 %", "5 %", "20 %", "50 %", "100 %"])
    bar.set_label("share of the true class")
    bar.outline.set_visible(False)

    top1 = f"top-1 {100 * int(cells.trace()) / total:.2f} %" if total else "no samples"
    axes.set_title(f"{top1} of {total:,} images, {classes} classes" if total else top1, loc="left")
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    axes.tick_params(length=0)
    if labelled:
        size = "medium" if numbered else "x-small"
        across = 0 if max(map(len, names)) <= 3 else 90
        axes.set_xticks(range(classes), names, rotation=across, fontsize=size)
        axes.set_yticks(range(classes), names, fontsize=size)
        for label in (*axes.get_xticklabels(), *axes.get_yticklabels()):
            label.set_parse_math(False)  # a class may be named $1
        axes.set_xticks(np.arange(classes - 1) + 0.5, minor=True)
        axes.set_yticks(np.arange(classes - 1) + 0.5, minor=True)
        axes.grid(which="minor", color="white", linewidth=1.0 if numbered else 0.4)
        axes.tick_params(which="minor", length=0)
    else:
        axes.set_xticks([])
        axes.set_yticks([])
    axes.spines[:].set_color("0.8")
    if numbered:
        for (row, column), count in np.ndenumerate(cells):
            if count:
                ink = "white" if share[row, column] > 0.35 else "black"
                size = "medium" if count < 1000 else "x-small"
                axes.text(column, row, f"{count}", ha="center", va="center", color=ink, fontsize=size)

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")  # drawn as boxes
        FigureCanvasAgg(figure).print_png(out)
