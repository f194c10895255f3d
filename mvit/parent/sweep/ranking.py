"""Ranking of trials by their objectives: the first one alone, or by non-domination where there are several."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mvit.sweep_config import RISES, Objective

Values = Mapping[str, float]
"""What a trial came to: its objectives, and at a rung also what breaks ties."""
TIE: Objective = "val/loss"
"""Lower is better. Of a few hundred images, several trials often have as many right."""


def measures(objectives: Sequence[Objective]) -> tuple[Objective, ...]:
    """What trials are compared by at a rung."""
    return (*objectives, *(() if TIE in objectives else (TIE,)))


def ranked(values: Mapping[int, Values], objectives: Sequence[Objective]) -> list[int]:
    """Trials, by their numbers, the best one first; those without a value of each objective are left out.

    Of trials that are equal in the one objective, that with the lower loss is first, where losses are known.
    With several objectives: front by front, and within a front the loneliest first, by the crowding distance of
    NSGA-II (Deb et al., 2002); of equally lonely ones, the best in the first objective.
    """
    costs = {
        trial: tuple(-found[one] if one in RISES else found[one] for one in objectives)
        for trial, found in sorted(values.items())
        if all(one in found for one in objectives)
    }
    if len(objectives) == 1:
        return sorted(costs, key=lambda trial: (costs[trial], values[trial].get(TIE, float("inf"))))
    return [trial for front in _fronts(costs) for trial in _lonely_first({one: costs[one] for one in front})]


def pareto_front(values: Mapping[int, Values], objectives: Sequence[Objective]) -> list[int]:
    """The trials that no other one beats in one objective without losing in another."""
    costs = {trial: tuple(-v[o] if o in RISES else v[o] for o in objectives) for trial, v in sorted(values.items())}
    return _fronts(costs)[0] if costs else []


def _fronts(costs: Mapping[int, tuple[float, ...]]) -> list[list[int]]:
    left, fronts = dict(costs), list[list[int]]()
    while left:
        front = [one for one in left if not any(_dominates(other, left[one]) for other in left.values())]
        fronts.append(front)
        left = {trial: cost for trial, cost in left.items() if trial not in front}
    return fronts


def _dominates(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return one != other and all(a <= b for a, b in zip(one, other, strict=True))


def _lonely_first(costs: Mapping[int, tuple[float, ...]]) -> list[int]:
    distance = dict.fromkeys(costs, 0.0)
    for index in range(len(next(iter(costs.values())))):
        order = sorted(costs, key=lambda trial: costs[trial][index])
        span = costs[order[-1]][index] - costs[order[0]][index]
        distance[order[0]] = distance[order[-1]] = float("inf")
        for before, trial, after in zip(order, order[1:], order[2:], strict=False):
            distance[trial] += (costs[after][index] - costs[before][index]) / span if span else 0.0
    return sorted(costs, key=lambda trial: (-distance[trial], costs[trial][0]))
