"""Search: the values of the next trial, drawn from what those before it came to.

The study of Optuna is made anew for each draw, from what is known of the trials: the ledger is the truth, and a sampler
has no state that a kill could lose. A draw depends on the seed, the number of the trial, and what is known by then.
"""

from __future__ import annotations

import hashlib
import itertools
import math
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, cast

from mvit.parent.request.axes import Axis, Space, bare
from mvit.parent.sweep.ranking import Values
from mvit.sweep_config import RISES, Objective, SearchSweep

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler
    from optuna.study import Study
    from optuna.trial import Trial

Drawn = Mapping[str, str]
"""The value of each key that a trial has, as a person would type it."""
State = Literal["running", "paused", "finished", "failed"]


@dataclass(frozen=True)
class Known:
    """A trial, as far as it is known."""

    drawn: Drawn
    state: State
    values: Values
    epoch: int = 0
    """Where it is paused."""


class Search:
    """Draws trials, and is told what became of them."""

    def __init__(
        self,
        space: Space,
        settings: SearchSweep,
        *,
        objectives: Sequence[Objective],
        applies: Callable[[Drawn], Collection[str]],
    ) -> None:
        """`applies` says which keys a trial of these values has; a key of an option that is not chosen is left out."""
        self._axes = space.by_key
        self._settings, self._objectives, self._applies = settings, objectives, applies
        self.earlier: list[Known] = []
        """Trials of other sweeps."""
        self._known: dict[int, Known] = {}
        self._attributes: dict[int, dict[str, Any]] = {}
        self._cells = self._grid()

    def know(self, number: int, known: Known) -> None:
        """What has become of a trial."""
        self._known[number] = known

    def draw(self, number: int, *, attempt: int = 0) -> Drawn | None:
        """The values of a trial; None where no other is left. Another attempt draws other values."""
        match self._settings.sampler:
            case "grid":
                return next(self._cells, None)
            case "quasi_random":
                return self._kept(self._of_sobol(number + len(self._known) * attempt))
            case "tpe" if len(self.earlier) + number < _startup(self._settings):
                return self._kept(self._of_sobol(number + len(self._known) * attempt))
            case _:
                return self._of_study(number, attempt)

    def known_of(self, overrides: Sequence[str], state: State, values: Values, *, epoch: int = 0) -> Known | None:
        """A trial by its overrides; None where they have no value of the axes, or another than those allow."""
        typed = {bare(key): value for key, _, value in (text.partition("=") for text in overrides)}
        drawn = {key: typed[key] for key in self._axes if key in typed}
        fits = all(_fits(self._axes[key], value) for key, value in drawn.items())
        return Known(drawn, state, values, epoch) if drawn and fits else None

    def _kept(self, drawn: Drawn) -> Drawn:
        applies = self._applies(drawn)
        return {key: value for key, value in drawn.items() if key in applies}

    def _grid(self) -> Iterator[Drawn]:
        """Every combination once, without those that are known."""
        given: list[Drawn] = []
        for chosen in itertools.product(*(axis.values for axis in self._axes.values())):
            cell = self._kept(dict(zip(self._axes, chosen, strict=True)))
            if cell not in given and all(cell != known.drawn for known in self._known.values()):
                given.append(cell)
                yield cell

    def _of_sobol(self, index: int) -> Drawn:
        from scipy.stats import qmc  # pyright: ignore[reportMissingTypeStubs, reportUnknownVariableType]

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of points that are fewer than a power of two
            sequence = cast(Any, qmc).Sobol(len(self._axes), scramble=True, seed=self._settings.seed)
            point: list[float] = list(sequence.random(index + 1)[index])
        return {key: _at(axis, u) for (key, axis), u in zip(self._axes.items(), point, strict=True)}

    def _of_study(self, number: int, attempt: int) -> Drawn:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        words = f"{self._settings.seed} {number} {attempt}".encode()
        seed = int.from_bytes(hashlib.sha256(words).digest()[:4], "big")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what is experimental there is pinned here
            study = self._study(_sampler(self._settings, seed=seed))
            trial = study.ask()
            drawn = self._suggested(trial)
            self._attributes[number] = dict(study.get_trials(deepcopy=False)[-1].system_attrs)
        return drawn

    def _study(self, sampler: BaseSampler) -> Study:
        import optuna
        from optuna.trial import TrialState

        to = optuna.study.StudyDirection
        directions = [to.MAXIMIZE if one in RISES else to.MINIMIZE for one in self._objectives]
        study = optuna.create_study(directions=directions, sampler=sampler)
        several = len(self._objectives) > 1
        for number, known in [*((-1, one) for one in self.earlier), *sorted(self._known.items())]:
            values = [known.values[one] for one in self._objectives if one in known.values]
            is_whole = len(values) == len(self._objectives) and all(map(math.isfinite, values))
            common: dict[str, Any] = {
                "params": {key: _param(self._axes[key], value) for key, value in known.drawn.items()},
                "distributions": {key: _distribution(self._axes[key]) for key in known.drawn},
                "system_attrs": self._attributes.get(number, {}),
            }
            if known.state == "running":
                made = optuna.create_trial(state=TrialState.RUNNING, **common)
            elif not is_whole:
                made = optuna.create_trial(state=TrialState.FAIL, **common)
            elif known.state == "paused" and not several:
                # Optuna ranks it below those that have come further.
                made = optuna.create_trial(
                    state=TrialState.PRUNED, intermediate_values={known.epoch: values[0]}, **common
                )
            else:
                made = optuna.create_trial(state=TrialState.COMPLETE, values=values, **common)
            study.add_trial(made)
        return study

    def _suggested(self, trial: Trial) -> Drawn:
        """Choices of groups first: they say which other keys there are."""
        groups = {key: axis for key, axis in self._axes.items() if "." not in key and axis.values}
        drawn = {key: _suggest(trial, key, axis) for key, axis in groups.items()}
        applies = self._applies(drawn)
        drawn = {key: value for key, value in drawn.items() if key in applies}
        for key, axis in self._axes.items():
            if key not in groups and key in applies:
                drawn[key] = _suggest(trial, key, axis)
        return drawn


def _sampler(settings: SearchSweep, *, seed: int) -> BaseSampler:
    from optuna import samplers

    match settings.sampler:
        case "random":
            return samplers.RandomSampler(seed=seed)
        case "cma_es":
            return samplers.CmaEsSampler(seed=seed, warn_independent_sampling=False)
        case _:
            return samplers.TPESampler(
                seed=seed, multivariate=True, group=True, constant_liar=True, n_startup_trials=_startup(settings)
            )


def _startup(settings: SearchSweep) -> int:
    """Trials before TPE learns from them, which are spread over the space.

    A choice that none of them has is hardly ever drawn later, and of eight random starts of five trials, two had all
    of them at one of two options.
    """
    return min(10, max(4, settings.max_trials // 4))


def _distribution(axis: Axis) -> BaseDistribution:
    from optuna import distributions as of

    if axis.values:
        return of.CategoricalDistribution(axis.values)
    if axis.is_int:
        return of.IntDistribution(int(axis.low), int(axis.high), log=axis.is_log)
    return of.FloatDistribution(axis.low, axis.high, log=axis.is_log)


def _suggest(trial: Trial, key: str, axis: Axis) -> str:
    if axis.values:
        return trial.suggest_categorical(key, axis.values)
    if axis.is_int:
        return axis.text(trial.suggest_int(key, int(axis.low), int(axis.high), log=axis.is_log))
    return axis.text(trial.suggest_float(key, axis.low, axis.high, log=axis.is_log))


def _param(axis: Axis, value: str) -> Any:
    if axis.values:
        return value
    return int(value) if axis.is_int else float(value)


def _fits(axis: Axis, value: str) -> bool:
    if axis.values:
        return value in axis.values
    try:
        return axis.low <= _param(axis, value) <= axis.high
    except ValueError:
        return False


def _at(axis: Axis, u: float) -> str:
    """The value at a point of the unit interval."""
    if axis.values:
        return axis.values[int(u * len(axis.values))]
    if axis.is_int:
        return axis.text(min(math.floor(_between(axis.low, axis.high + 1, u, is_log=axis.is_log)), axis.high))
    return axis.text(_between(axis.low, axis.high, u, is_log=axis.is_log))


def _between(low: float, high: float, u: float, *, is_log: bool) -> float:
    return low * (high / low) ** u if is_log else low + (high - low) * u
