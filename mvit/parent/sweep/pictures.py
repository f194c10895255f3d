"""Pictures of a sweep: its history, its axes beside its score, their importance, its slots over time, its front."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# matplotlib's annotations leave their **kwargs untyped.

from __future__ import annotations

import warnings
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mvit.parent.request.axes import bare
from mvit.parent.sweep.outcome import SweepOutcome, TrialOutcome
from mvit.rundir.ledger import TrialEnded, TrialPaused, TrialStarted, read_events
from mvit.sweep_config import RISES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FEWEST = 2
"""Trials that have come to their end, for a picture to say something."""
MOST_NAMED = 12
"""Values of an axis whose names stand beside it."""
COLOURS = {"FINISHED": "tab:blue", "PAUSED": "tab:grey", "FAILED": "tab:red", "KILLED": "tab:orange"}


def draw_all(outcome: SweepOutcome) -> list[Path]:
    """Write the pictures that the sweep gives into its folder; returns their paths. Raises `OSError`."""
    made: list[Path] = []

    def keep(name: str, figure: Figure | None) -> None:
        if figure is not None:
            path = outcome.folder / f"{name}.png"
            figure.savefig(path)
            made.append(path)

    keep("timeline", _timeline(outcome))
    if len(outcome.order) < FEWEST:
        return made
    keep("history", _history(outcome))
    varied = _varied(outcome)
    if varied:
        keep("parallel_coordinates", _parallel(outcome, varied))
        keep("importances", _importances(outcome, varied))
    if len(outcome.objectives) > 1:
        keep("pareto_front", _front(outcome))
    return made


def _figure(width: float = 8.0, height: float = 4.5) -> tuple[Figure, Axes]:
    # Without pyplot, which looks for a display.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _history(outcome: SweepOutcome) -> Figure:
    """The first objective by the number of the trial, and the best one so far."""
    objective = outcome.objectives[0]
    better = max if objective in RISES else min
    points = sorted((one.number, one.values[objective]) for one in outcome.order)
    figure, axes = _figure()
    numbers, values = [n for n, _ in points], [value for _, value in points]
    axes.plot(numbers, values, "o", color="tab:blue", label="finished")
    axes.step(
        numbers, [better(values[: i + 1]) for i in range(len(values))], where="post", color="tab:red", label="best"
    )
    paused = [(one.number, one.values[objective]) for one in outcome.trials if one.is_pruned and one.values]
    if paused:
        axes.plot(
            *zip(*paused, strict=True), "o", color="tab:grey", markerfacecolor="none", label="pruned, where it was"
        )
    axes.set(xlabel="trial", ylabel=objective)
    axes.legend(frameon=False)
    return figure


def _varied(outcome: SweepOutcome) -> dict[str, list[str]]:
    """The values, trial by trial in their order, of the keys that differ."""
    typed = [
        {bare(key): value for key, _, value in (text.partition("=") for text in one.trial.overrides)}
        for one in outcome.order
    ]
    keys = dict.fromkeys(key for values in typed for key in values)
    found = {key: [values.get(key, "-") for values in typed] for key in keys}
    return {key: values for key, values in found.items() if len(set(values)) > 1}


def _numbers(values: Sequence[str]) -> list[float] | None:
    with suppress(ValueError):
        return [float(value) for value in values]
    return None


def _parallel(outcome: SweepOutcome, varied: dict[str, list[str]]) -> Figure:
    """A line for each trial through its values; the colour is the first objective."""
    from matplotlib import colormaps
    from matplotlib.colors import Normalize

    objective = outcome.objectives[0]
    scores = [one.values[objective] for one in outcome.order]
    figure, axes = _figure(width=max(8.0, 1.8 * (len(varied) + 1)))
    columns: list[list[float]] = []
    for place, values in enumerate([*varied.values(), [str(score) for score in scores]]):
        numbers = _numbers(values)
        names = sorted(set(values)) if numbers is None else []
        height = numbers if numbers is not None else [float(names.index(value)) for value in values]
        low, high = min(height), max(height)
        is_log = numbers is not None and low > 0 and high / low > 30
        scaled = [_share(one, low, high, is_log=is_log) for one in height]
        columns.append(scaled)
        shown = dict(zip(scaled, values, strict=True))
        if len(shown) > MOST_NAMED or (numbers is not None and place == len(varied)):
            shown = {at: f"{float(text):.3g}" for at, text in shown.items() if at in (min(scaled), max(scaled))}
        for at, text in shown.items():
            axes.text(place + 0.03, at, text, fontsize="x-small", va="center")
    colour, norm = colormaps["viridis"], Normalize(min(scores), max(scores))
    for line, score in reversed(list(zip(zip(*columns, strict=True), scores, strict=True))):
        axes.plot(range(len(line)), line, color=colour(norm(score)), alpha=0.8)
    axes.set_xticks(range(len(columns)), [*varied, objective], rotation=12)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    for place in range(len(columns)):
        axes.axvline(place, color="lightgrey", zorder=0)
    return figure


def _share(value: float, low: float, high: float, *, is_log: bool) -> float:
    import math

    if high == low:
        return 0.5
    return math.log(value / low) / math.log(high / low) if is_log else (value - low) / (high - low)


def _importances(outcome: SweepOutcome, varied: dict[str, list[str]]) -> Figure | None:
    """How much each axis says about being among the best trials (PED-ANOVA: Watanabe et al., 2023)."""
    import optuna
    from optuna import distributions as of

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    objective = outcome.objectives[0]
    direction = "maximize" if objective in RISES else "minimize"
    spaces: dict[str, Any] = {}
    params: dict[str, list[Any]] = {}
    for key, values in varied.items():
        numbers = _numbers(values)
        if numbers is not None and len(set(numbers)) > MOST_NAMED:
            low, high = min(numbers), max(numbers)
            spaces[key], params[key] = of.FloatDistribution(low, high, log=low > 0 and high / low > 30), list(numbers)
        else:
            spaces[key], params[key] = of.CategoricalDistribution(sorted(set(values))), list(values)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        study = optuna.create_study(direction=direction)
        for place, one in enumerate(outcome.order):
            chosen = {key: values[place] for key, values in params.items()}
            study.add_trial(optuna.create_trial(params=chosen, distributions=spaces, value=one.values[objective]))
        try:
            found = optuna.importance.get_param_importances(study)
        except (ValueError, RuntimeError):  # too few trials, or all of one score
            return None
    figure, axes = _figure(height=1.2 + 0.4 * len(found))
    names = sorted(found, key=lambda key: found[key])
    axes.barh(names, [found[name] for name in names], color="tab:blue")
    axes.set(xlabel=f"importance for {objective}")
    return figure


def _timeline(outcome: SweepOutcome) -> Figure | None:
    """The slots over time, a bar for each turn of a trial."""
    begun: dict[int, TrialStarted] = {}
    turns: list[tuple[int, float, float, str, int]] = []
    for event in read_events(outcome.folder):
        if isinstance(event, TrialStarted):
            begun[event.trial] = event
        elif isinstance(event, TrialEnded | TrialPaused) and (first := begun.pop(event.trial, None)):
            status = event.status if isinstance(event, TrialEnded) else "PAUSED"
            turns.append((first.slot, first.time, event.time, status, event.trial))
    if not turns:
        return None
    slots = sorted({slot for slot, *_ in turns})
    zero = min(begins for _, begins, *_ in turns)
    figure, axes = _figure(height=1.5 + 0.5 * len(slots))
    for slot, begins, ends, status, trial in turns:
        axes.barh(slots.index(slot), ends - begins, left=begins - zero, color=COLOURS[status], edgecolor="white")
        axes.text(
            (begins + ends) / 2 - zero, slots.index(slot), str(trial), ha="center", va="center", fontsize="x-small"
        )
    for status in dict.fromkeys(status for *_, status, _ in turns):
        axes.barh(0, 0, color=COLOURS[status], label=status)
    axes.set_yticks(range(len(slots)), [f"slot {slot}" for slot in slots])
    axes.set(xlabel="seconds since the first trial began")
    axes.legend(frameon=False, fontsize="small", loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return figure


def _front(outcome: SweepOutcome) -> Figure:
    """The second objective by the first one; the front is marked and named."""
    first, second = outcome.objectives[:2]
    figure, axes = _figure(height=5.5)

    def points(trials: Sequence[TrialOutcome]) -> tuple[list[float], list[float]]:
        return [one.values[first] for one in trials], [one.values[second] for one in trials]

    axes.plot(*points([one for one in outcome.order if one not in outcome.best]), "o", color="tab:grey", label="others")
    front = sorted(outcome.best, key=lambda one: one.values[first])
    axes.plot(*points(front), "o-" if len(outcome.objectives) == 2 else "o", color="tab:red", label="Pareto front")
    for one in front:
        place = (one.values[first], one.values[second])
        axes.annotate(str(one.label), place, xytext=(4, 4), textcoords="offset points", fontsize="xx-small")
    axes.set(xlabel=first, ylabel=second)
    axes.legend(frameon=False)
    return figure
