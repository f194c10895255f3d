"""Picture of the step benchmark: training images per second of each subject, a panel per size.

Written by hand, as SVG: a drawing library's files differ from version to version, and this one is compared with the
results.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from html import escape
from statistics import median

from benchmarks.results import Case, StepResult

LABELS, PANEL, VALUE = 200, 230, 50
"""Pixels: the width of the names, of a panel, and, of the latter, of a bar's number."""
HEAD, ROW, BAR, FOOT = 50, 24, 15, 14
OURS, THEIRS, INK = "#1f6feb", "#9aa4af", "#24292f"


def picture(result: StepResult, *, label: Callable[[str], str]) -> str:
    """The cases of the largest images, as SVG; empty without any."""
    side = max((case.image_size for case in result.cases), default=0)
    cases = [case for case in result.cases if case.image_size == side]
    if not cases:
        return ""
    names = list(dict.fromkeys(name for case in cases for name in result.names(case)))
    names.sort(key=lambda name: name.endswith("-avx2"))
    width, height = LABELS + PANEL * len(cases), HEAD + ROW * len(names) + FOOT
    title = f"Training, images/s, {side}x{side} pixels: {result.cpu}, {result.threads} threads"
    size = f'viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="12" fill="{INK}">',
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
        f'<text x="10" y="18" font-weight="bold">{escape(title)}</text>',
        *(
            f'<text x="{LABELS - 8}" y="{_row(number) + 12}" text-anchor="end">{escape(label(name))}</text>'
            for number, name in enumerate(names)
        ),
        *(line for number, case in enumerate(cases) for line in _panel(result, case, names, LABELS + PANEL * number)),
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def _panel(result: StepResult, case: Case, names: list[str], left: int) -> Iterator[str]:
    """The bars of a case, with a line from the slowest to the fastest round on each."""
    times = {name: result.values(case, name, "train") for name in names}
    images = 1e3 * case.batch
    scale = (PANEL - VALUE) * min(ms for values in times.values() for ms in values)
    yield f'<text x="{left}" y="40">{escape(case.model)}, batch {case.batch}</text>'
    for number, name in enumerate(names):
        if not (values := times[name]):
            continue
        top, fill = _row(number), OURS if name.startswith("mvit-") else THEIRS
        low, high = left + scale / max(values), left + scale / min(values)
        middle = f"{top + BAR / 2:.1f}"
        yield f'<rect x="{left}" y="{top}" width="{scale / median(values):.1f}" height="{BAR}" fill="{fill}"/>'
        yield f'<path d="M{low:.1f} {middle}H{high:.1f}" stroke="{INK}"/>'
        yield f'<text x="{high + 5:.1f}" y="{top + 12}">{images / median(values):.1f}</text>'


def _row(number: int) -> int:
    """Where a row begins."""
    return HEAD + ROW * number
