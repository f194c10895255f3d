"""Speeds: the table of a benchmark, under the headings of the published one, and the published rows of the model."""

from __future__ import annotations

from collections.abc import Iterator

from mvit import console
from mvit.parent.report.grid import Grid
from mvit.parent.report.published import Published, read_published
from mvit.rundir.frozen import Run
from mvit.rundir.measured import Measured
from mvit.rundir.result import BenchmarkResult

HEADINGS = (
    *("model name", "params(M)", "cards", "mode", "batch size", "resolution", "jit level", "graph compile"),
    *("ms/step", "quartiles", "img/s", "load", "source"),
)
MAY_GO = ("params(M)", "jit level", "cards", "load")
NUMBERS = ("params(M)", "batch size", "graph compile", "ms/step", "quartiles", "img/s", "load")


def report_speeds(run: Run, result: BenchmarkResult) -> None:
    grid, terminal = speeds(run, result), console.console
    for line in (grid.fitted(terminal.width - 2) if terminal.is_terminal else grid).lines():
        console.say(f"  {line}")
    for line in remarks(run):
        console.say(f"  {line}")


def speeds(run: Run, result: BenchmarkResult) -> Grid:
    """A row for each shape, then what others have published of the same model."""
    rows = [_measured(run, shape, cached=bool(result.metrics["perf/compile_cached"])) for shape in result.shapes]
    rows += [_published(one) for one in _of_model(run)]
    return Grid(HEADINGS, rows, NUMBERS, MAY_GO).without_empty_columns()


def _measured(run: Run, shape: Measured, *, cached: bool) -> dict[str, str]:
    lower, median, upper = shape.quartiles_ms
    plan = run.plan
    return {
        "model name": run.config.model.name,
        "params(M)": f"{plan.parameters / 1e6:.2f}",
        "cards": f"{plan.world_size} {plan.device}",
        "mode": shape.mode,
        "batch size": f"{shape.batch_size}",
        "resolution": f"{shape.image_size}x{shape.image_size}",
        "jit level": plan.jit_level or "",
        "graph compile": f"{shape.compile_s:.1f}s{' (cached)' if cached else ''}",
        "ms/step": f"{median:.2f}",
        "quartiles": f"{lower:.2f}-{upper:.2f}",
        "img/s": f"{shape.images_per_s:.2f}",
        "load": f"{shape.other_load_pct / 100:.1f} cores",
        "source": "this run",
    }


def _published(one: Published) -> dict[str, str]:
    row = {
        "model name": one.model,
        "cards": f"{one.cards} {one.device}",
        "mode": "train",
        "batch size": f"{one.batch_size}",
        "resolution": f"{one.image_size}x{one.image_size}",
        "jit level": one.jit_level,
        "graph compile": None if one.compile_s is None else f"{one.compile_s:.0f}s",
        "ms/step": None if one.ms_per_step is None else f"{one.ms_per_step:.2f}",
        "img/s": None if one.images_per_s is None else f"{one.images_per_s:.2f}",
        "source": one.source,
    }
    return {heading: cell for heading, cell in row.items() if cell is not None}


def _of_model(run: Run) -> list[Published]:
    """The published rows with a speed."""
    rows = read_published().results
    return [one for one in rows if one.model == run.config.model.name and one.images_per_s is not None]


def remarks(run: Run) -> Iterator[str]:
    """What to bear in mind where the rows are held against each other."""
    ours, theirs = f"{run.plan.world_size} {run.plan.device}", [f"{one.cards} {one.device}" for one in _of_model(run)]
    if not theirs:
        yield f"no speed of {run.config.model.name} has been published"
    elif ours not in theirs:
        yield f"the published rows are of other hardware ({', '.join(dict.fromkeys(theirs))}, this run: {ours})"
