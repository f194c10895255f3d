"""Options: every leaf of every model of a run, found in the types, each with two legal runs that differ in it alone."""

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, get_args, get_origin

import yaml
from pydantic.fields import FieldInfo

from mvit.config import TASKS, Frozen, RunConfig, kind_of, variants
from mvit.errors import ConfigError
from mvit.parent.request.check import parse
from mvit.parent.request.keys import CONF, options_of_kind
from tests.conftest import raw_config
from tests.effects.material import Material

Kinds = tuple[tuple[str, str], ...]
"""The kinds that an option needs: ("optimizer", "sgd")."""


@dataclass(frozen=True)
class Option:
    """A field of a run below the kinds that it needs, or the choice of a kind."""

    task: str
    path: str
    kinds: Kinds
    field: FieldInfo | None
    """None for the choice of a kind."""
    others: tuple[str, ...] = ()
    """The kinds that may be chosen instead."""

    def __str__(self) -> str:
        chosen = [f"{path}={kind}" for path, kind in self.kinds if self.path.startswith(path) and path != "task"]
        return " ".join([f"task={self.task}", *chosen, self.path])

    @property
    def section(self) -> str:
        return self.path.split(".")[0]


@dataclass(frozen=True)
class Pair:
    """Two legal runs that differ in one option."""

    option: Option
    raws: tuple[dict[str, Any], dict[str, Any]]
    configs: tuple[RunConfig, RunConfig]


def all_options() -> list[Option]:
    every = [option for task, model in TASKS.items() for option in _options(model, task=task, path="", kinds=())]
    return [option for option in every if not _is_refused(option)]


OF_SEVERAL = ("workers", "nodes", "hosts")
"""What a topology of CPUs has for several processes."""


def _is_refused(option: Option) -> bool:
    """A profile is of one process on a CPU, which has no bf16."""
    if option.task != "profile":
        return False
    of_cards = not {("topology", "ascend"), ("precision", "bf16")}.isdisjoint(option.kinds)
    return of_cards or option.path in ("topology.kind", *(f"topology.{name}" for name in OF_SEVERAL))


def _options(model: type[Frozen], *, task: str, path: str, kinds: Kinds) -> Iterator[Option]:
    for name, field in model.model_fields.items():
        if name == "kind":
            continue
        here = f"{path}.{name}" if path else name
        models = variants(field.annotation)
        is_list = get_origin(field.annotation) is tuple
        if not models or is_list or _allows_none(field.annotation):
            yield Option(task, here, kinds, field)
        for one in models:
            chosen = (*kinds, (here, kind_of(one))) if "kind" in one.model_fields else kinds
            if others := tuple(kind_of(other) for other in models if other is not one):
                yield Option(task, f"{here}.kind", chosen, None, others)
            yield from _options(one, task=task, path=f"{here}.0" if is_list else here, kinds=chosen)


def pair_of(option: Option, material: Material) -> Pair:
    """Two runs; fails where no second value is legal."""
    first = _raw(option, option.kinds, material)
    config = parse(first)
    for second in _changed(option, first, material):
        try:
            return Pair(option, (first, second), (config, parse(second)))
        except ConfigError:
            continue  # try the next value
    raise AssertionError(f"{option}: no other value than {_value(first, option.path)!r} is legal; add one to material")


def _changed(option: Option, raw: dict[str, Any], material: Material) -> Iterator[dict[str, Any]]:
    """The run with another value of the option, for each value worth trying."""
    if option.field is None:
        section = option.path.removesuffix(".kind")
        kept = tuple(one for one in option.kinds if one[0] != section)
        for kind in option.others:
            other = _raw(option, (*kept, (section, kind)), material)
            yield {**raw, option.section: other[option.section]}
        return
    given = {**material.values, **material.of_data.get(dict(option.kinds).get("data", ""), {})}.get(option.path)
    for value in [given] if given else _candidates(_value(raw, option.path), option.field.annotation):
        changed = deepcopy(raw)
        inner, _, last = option.path.rpartition(".")
        place = _value(changed, inner)
        place[last] = value
        yield changed


def _candidates(value: Any, annotation: Any) -> Iterator[Any]:
    """Other values of the same type, the first choice first."""
    match value:
        case None:
            yield from (0.01, 0.5) if "float" in str(annotation) else (2, 3)
        case bool():
            yield not value
        case str():
            words = get_args(annotation) if get_origin(annotation) is Literal else (f"{value}2",)
            yield from (word for word in words if word != value)
        case int():
            yield from (value + 1, value - 1, 2 * value, value // 2)
        case float():
            yield from (other for other in (2 * value, value / 2, value + 0.5, value + 1e-3) if other != value)
        case list():
            for index, element in enumerate(value):
                for other in _candidates(element, annotation):
                    yield [*value[:index], other, *value[index + 1 :]]
        case dict():
            yield None
        case _:
            return


def _raw(option: Option, kinds: Kinds, material: Material) -> dict[str, Any]:
    """The values of a run in which the option has a place."""
    groups = {path: options_of_kind(path, kind)[0] for path, kind in kinds if (CONF / path).is_dir()}
    usual = {"predict": "files", "benchmark": None, "profile": None}.get(option.task, "synthetic")
    data = {"data": usual} if usual else {}
    overrides = [f"{path}={name}" for path, name in {**data, **groups, "task": option.task}.items()]
    overrides += material.of_task[option.task]
    for kind in [*({} if "data" in groups else data).items(), *kinds]:
        overrides += material.of_kind.get(kind, [])
    for prefix, more in material.of_path.items():
        if option.path.startswith(prefix):
            overrides += more
    if option.task == "profile":
        overrides = ["topology=cpu" if text.startswith("topology=") else text for text in overrides]
    raw = deepcopy(_composed(*overrides))
    for path, kind in kinds:
        if path == "augment.policy":  # no group of its own
            raw["augment"]["policy"] = yaml.safe_load((CONF / "augment" / f"{kind}.yaml").read_text())["policy"]
    return raw


@cache
def _composed(*overrides: str) -> dict[str, Any]:
    return raw_config(*overrides)


def _value(raw: Any, path: str) -> Any:
    for key in path.split(".") if path else ():
        raw = raw[int(key)] if isinstance(raw, list) else raw[key]
    return raw


def _allows_none(annotation: Any) -> bool:
    return type(None) in get_args(annotation)
