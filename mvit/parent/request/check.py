"""Whether a configuration is legal: every problem, one line each.

ConfigError         the request is wrong: one line for each `Problem`, exit code 2
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from copy import deepcopy
from functools import cache
from typing import Annotated, Any, cast, get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from mvit.config import (
    TASKS,
    CommonConfig,
    Frozen,
    RunConfig,
    TrainRun,
    kind_of,
    validated,
    variants,
)
from mvit.errors import ConfigError, Problem
from mvit.parent.request import keys
from mvit.parent.request.rules import RULES, judge
from mvit.program import REFERENCE
from mvit.sweep_config import SweepConfig, SweepRequest


def parse(raw: Mapping[str, Any]) -> RunConfig:
    """The typed configuration; raises `ConfigError` with every problem found."""
    _, problems = check(raw)
    if problems:
        raise ConfigError(*problems)
    return validated(raw)


def check(raw: Mapping[str, Any]) -> tuple[dict[str, Any], list[Problem]]:
    """Sections that are valid by themselves, and the problems found in fields and between sections.

    Sections are judged one by one, so that a mistake in one does not hide another's.
    """
    raw = _without_missing(raw)
    model, problems = _model(raw)
    for key in raw:
        if key not in model.model_fields:
            problems += _foreign(key, raw[key], model)
    sections: dict[str, Any] = {}
    for name, (annotation, adapter) in _sections(model).items():
        if name not in raw:
            problems.append(Problem(name, None, "is missing", "take it from conf/config.yaml"))
            continue
        if name == "task" and problems and problems[0].path == "task.kind":
            continue
        try:
            sections[name] = adapter.validate_python(raw[name])
        except ValidationError as error:
            # A list that is too short is an error for each place it lacks, and one problem.
            translated = (_translate(name, annotation, item, model=model) for item in error.errors())
            problems += {str(problem): problem for problem in translated}.values()
            if all(item["type"] == "extra_forbidden" for item in error.errors()):
                # Unknown keys aside, the section is legal: let the rules see it too.
                extra = [_place(variants(annotation), list(item["loc"]))[0] for item in error.errors()]
                sections[name] = adapter.validate_python(_without(raw[name], extra))
    return sections, problems + list(judge(RULES, sections))


TAGS = ("count", "shares", "grid", "search", "none", "halving", "median")
"""What pydantic puts into the location of an error in the section `sweep`, beside its keys."""


def sweep_settings(raw: Any) -> SweepConfig:
    """The typed section `sweep`; raises `ConfigError` with every problem found."""
    try:
        return TypeAdapter(SweepConfig).validate_python(_without_missing(raw))
    except ValidationError as error:
        errors: list[dict[str, Any]] = [
            {**item, "loc": [part for part in item["loc"] if part not in TAGS]} for item in error.errors()
        ]
        # A list without a legal element is too short as well.
        inner = [one for one in errors if not any(_is_below(two["loc"], one["loc"]) for two in errors)]
        problems = (_translate("sweep", SweepConfig, item, model=SweepRequest) for item in inner)
        raise ConfigError(*{str(problem): problem for problem in problems}.values()) from error


def _is_below(place: list[Any], above: list[Any]) -> bool:
    return len(place) > len(above) and place[: len(above)] == above


def _model(raw: Mapping[str, Any]) -> tuple[type[CommonConfig], list[Problem]]:
    """The model of the task that is chosen; of training, and the problem, where it is none."""
    task = raw.get("task")
    kind = cast(Mapping[str, Any], task).get("kind") if isinstance(task, Mapping) else None
    if isinstance(kind, str) and kind in TASKS:
        return TASKS[kind], []
    rule = "is not a task" if kind is not None else "has no value"
    return TrainRun, [Problem("task.kind", kind, rule, keys.nearest(str(kind), list(TASKS)))]


def _foreign(section: str, value: Any, model: type[CommonConfig]) -> Iterator[Problem]:
    """The problems of a section that the task does not have: it is another task's, or does not exist."""
    owners = keys.owners(section)
    task = next(kind for kind, one in TASKS.items() if one is model)
    for path in keys.leaves(value, section):
        yield keys.unused(path, by=f"task={task}", owners=owners) if owners else keys.unknown(path, model)


def _without_missing(value: Any) -> Any:
    """A copy without what OmegaConf marks as still to be given."""
    if not isinstance(value, Mapping):
        return value
    pairs = cast(Mapping[str, Any], value).items()
    return {key: _without_missing(inner) for key, inner in pairs if inner != "???"}


def _without(section: Mapping[str, Any], paths: list[list[Any]]) -> dict[str, Any]:
    """A copy without the keys at `paths`."""
    copy = deepcopy(dict(section))
    for *inner, last in paths:
        place = copy
        for part in inner:
            place = place[part]
        del place[last]
    return copy


@cache
def _sections(model: type[CommonConfig]) -> dict[str, tuple[Any, TypeAdapter[Any]]]:
    """The annotation of each field of a run, and what judges it."""
    hints = get_type_hints(model, include_extras=True)
    return {
        name: (hints[name], TypeAdapter[Any](hints[name]) if variants(hints[name]) else _of_value(hints[name], field))
        for name, field in model.model_fields.items()
    }


def _of_value(annotation: Any, field: FieldInfo) -> TypeAdapter[Any]:
    """Judges a field that is not a model; strict, as the models are."""
    constrained = cast(Any, Annotated)[annotation, field]  # made at run time: no type to a checker
    return TypeAdapter[Any](constrained, config=ConfigDict(strict=True))


def _translate(section: str, annotation: Any, error: Any, *, model: type[Frozen]) -> Problem:
    where, models, siblings = _place(variants(annotation), list(error["loc"]))
    path = ".".join([section, *(str(part) for part in where)])
    value = error["input"]
    purpose = _purpose(siblings, where) if siblings else _purpose([model], [section])
    match error["type"]:
        case "extra_forbidden":
            return _extra(section, where, siblings, model=model)
        case "missing" if where and isinstance(where[-1], int):
            return Problem(path.rpartition(".")[0], value, "has too few values", purpose)
        case "missing":
            return Problem(path, None, "has no value", f"set {path}=...")
        case "union_tag_invalid" | "union_tag_not_found":
            kind = error["ctx"].get("tag", value)
            rule = f"is not a kind of {str(where[-1]) if where else section}"
            return Problem(f"{path}.kind", kind, rule, keys.nearest(str(kind), [kind_of(one) for one in models]))
        case "model_type" | "model_attributes_type" | "dict_type":
            return Problem(path, value, "must be a group of keys", purpose)
        case _:
            message = re.sub(r"^\w+ should ", "must ", error["msg"])
            message = message if message.startswith("must ") else f"is refused: {message[:1].lower()}{message[1:]}"
            return Problem(path, "null" if value is None else value, message, purpose)


def _extra(section: str, where: list[Any], siblings: list[type[Frozen]], *, model: type[Frozen]) -> Problem:
    """A key that its section does not have: that of another kind or task, or of none."""
    path = ".".join([section, *(str(part) for part in where)])
    chosen = siblings[0]
    if "kind" not in chosen.model_fields:
        owners, task = keys.owners(path), next(kind for kind, one in TASKS.items() if one is model)
        return keys.unused(path, by=f"task={task}", owners=owners) if owners else keys.unknown(path, model)
    if len(where) == 1 and (owners := keys.owners_of_key(section, where[0], chosen=chosen)):
        return keys.unused(path, by=f"{section}={kind_of(chosen)}", owners=owners)
    if path in keys.keys_of(model):
        return Problem(path, None, f"not used by {path.rpartition('.')[0]}.kind={kind_of(chosen)}", "remove it")
    return keys.unknown(path, model)


def _place(models: list[type[Frozen]], location: list[Any]) -> tuple[list[Any], list[type[Frozen]], list[type[Frozen]]]:
    """The keys of an error's location, the models it leads to, and those whose field its last key is.

    pydantic puts the chosen member of a union into the location, where it is not a key.
    """
    where: list[Any] = []
    siblings = models
    for part in location:
        chosen = [model for model in models if len(models) > 1 and kind_of(model) == part]
        if chosen:
            models = chosen
            continue
        where.append(part)
        if isinstance(part, str):
            siblings = models
            fields = [model.model_fields[part] for model in models if part in model.model_fields]
            models = [inner for field in fields for inner in variants(field.annotation)]
    return where, models, siblings


def _purpose(models: list[type[Frozen]], where: list[Any]) -> str:
    """What the field is for, as a remedy."""
    names = [part for part in where if isinstance(part, str)]
    for model in models:
        field = model.model_fields.get(names[-1]) if names else None
        if field and field.description:
            return field.description[:1].lower() + field.description[1:].rstrip(".")
    return f"see {REFERENCE}"
