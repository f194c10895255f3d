"""The source of a search: trials that are drawn, composed and frozen one after the other."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

from mvit import console
from mvit.errors import ConfigError
from mvit.parent.freeze import plan_launch
from mvit.parent.report.table import label_of
from mvit.parent.request.axes import Axis, Space, bare
from mvit.parent.request.compose import Composer
from mvit.parent.sweep.outcome import SweepOutcome
from mvit.parent.sweep.ranking import Values
from mvit.parent.sweep.search import Drawn, Known, Search, State
from mvit.parent.sweep.trials import Freezer, Trial, identity
from mvit.rundir.ledger import Ledger, SearchExhausted
from mvit.rundir.objectives import values_of
from mvit.sweep_config import SearchSweep

MOST_ATTEMPTS = 20
"""Draws of one trial, where those before were of a configuration that another trial has, or that is not legal."""


class Source:
    """Makes trials of what a search draws, until it has made as many as were asked for."""

    def __init__(
        self,
        space: Space,
        sweep: SearchSweep,
        *,
        composer: Composer,
        freezer: Freezer,
    ) -> None:
        self._space, self._sweep, self._composer, self._freezer = space, sweep, composer, freezer
        self._groups = _groups(space, composer)
        self._applicable = {chosen: _applicable(space, composer, chosen) for chosen in _choices(self._groups)}
        self._search = Search(space, sweep, objectives=sweep.objectives, applies=self._applies)
        self._made: dict[str, int] = {}
        """The number of the trial that has a configuration, by its identity."""
        self._drawn: dict[int, Drawn] = {}
        self._number = 0
        self._search.earlier = [
            known
            for folder in sweep.start_from
            for trial in SweepOutcome(Path(folder)).finished.values()
            if trial.run and (values := values_of(trial.run, sweep.objectives))
            if (known := self._search.known_of(trial.trial.overrides, "finished", values))
        ]
        if sweep.start_from:
            console.say(f"mvit: {len(self._search.earlier)} trials of earlier sweeps are known")

    def draw(self) -> Trial | None:
        """One more trial; None when there is none to come. Raises `RunDirError` where it cannot be written."""
        if self._number >= self._sweep.max_trials:
            return None
        reason = "all that is drawn has been tried"
        attempts = itertools.count() if self._sweep.sampler == "grid" else range(MOST_ATTEMPTS)
        for attempt in attempts:
            drawn = self._search.draw(self._number, attempt=attempt)
            if drawn is None:
                break
            axes = self._space.by_key
            overrides = [*self._space.fixed, *(axes[key].override(value) for key, value in drawn.items())]
            try:
                planned = self._freezer.fitted(
                    plan_launch(
                        self._composer.compose(overrides), host=self._freezer.host, surveys=self._freezer.surveys
                    )
                )
                if identity(planned.config) in self._made and not self._sweep.again:
                    continue
                label = label_of(overrides, drawn.keys())
                (trial,) = self._freezer.freeze_all([(planned, overrides)], [label], first=self._number)
            except ConfigError as error:  # values that do not go together
                reason = str(error).partition("\n")[0]
                continue
            self.add(trial, overrides, "running", {}, config=identity(planned.config))
            return trial
        console.say(f"mvit: no other trial is drawn: {reason}")
        with suppress(OSError):
            Ledger(self._freezer.folder).append(SearchExhausted())
        return None

    def add(
        self, trial: Trial, overrides: Sequence[str], state: State, values: Values, *, config: str, epoch: int = 0
    ) -> None:
        """A trial that was made, as far as it is known."""
        self._made[config] = trial.number
        self._number = max(self._number, trial.number + 1)
        if known := self._search.known_of(overrides, state, values, epoch=epoch):
            self._drawn[trial.number] = known.drawn
            self._search.know(trial.number, known)

    def tell(self, trial: Trial, state: State, values: Values, *, epoch: int = 0) -> None:
        """What has become of a trial."""
        if (drawn := self._drawn.get(trial.number)) is not None:
            self._search.know(trial.number, Known(drawn, state, values, epoch))

    def _applies(self, drawn: Drawn) -> frozenset[str]:
        chosen = tuple((bare(axis.key), drawn[bare(axis.key)]) for axis in self._groups if bare(axis.key) in drawn)
        return self._applicable.get(chosen, frozenset(self._space.by_key))


def corners(space: Space, composer: Composer) -> list[list[str]]:
    """Runs at the bounds of a space, for each choice of groups: two that have the lowest and the highest values."""
    trials: list[list[str]] = []
    for chosen in _choices(_groups(space, composer)):
        applicable = _applicable(space, composer, chosen)
        for end in (0, -1):
            values = dict(chosen)
            axes = space.by_key
            for key, axis in axes.items():
                if key in applicable and key not in values:
                    values[key] = axis.values[end] if axis.values else axis.text(axis.high if end else axis.low)
            trials.append([*space.fixed, *(axes[key].override(value) for key, value in values.items())])
    return trials


def _groups(space: Space, composer: Composer) -> list[Axis]:
    return [axis for axis in space.axes if axis.values and composer.is_group(bare(axis.key))]


def _choices(groups: Sequence[Axis]) -> list[tuple[tuple[str, str], ...]]:
    lists = [[(bare(axis.key), value) for value in axis.values] for axis in groups]
    return list(itertools.product(*lists))


def _applicable(space: Space, composer: Composer, chosen: Sequence[tuple[str, str]]) -> frozenset[str]:
    """The keys that a run of these choices has; those that none has are left to be refused."""
    keys = space.by_key
    raw = composer.compose([*space.fixed, *(keys[key].override(value) for key, value in chosen)])
    groups = {key for key, _ in chosen}
    return frozenset(
        key for key in keys if key in groups or _has(raw, key) or not _is_conditional(space, composer, key)
    )


def _is_conditional(space: Space, composer: Composer, key: str) -> bool:
    """Whether another choice of groups has the key."""
    groups = _groups(space, composer)
    if key.partition(".")[0] not in {bare(axis.key) for axis in groups}:
        return False
    axes = {bare(axis.key): axis for axis in groups}
    return any(
        _has(composer.compose([*space.fixed, *(axes[group].override(value) for group, value in chosen)]), key)
        for chosen in _choices(groups)
    )


def _has(raw: Mapping[str, Any], key: str) -> bool:
    value: Any = raw
    for part in key.split("."):
        if not isinstance(value, Mapping) or part not in (inner := cast(Mapping[str, Any], value)):
            return False
        value = inner[part]
    return True
