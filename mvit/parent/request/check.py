"""Whether a configuration is legal: every problem, one line each.

ConfigError         the request is wrong: one line for each `Problem`, exit code 2
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from copy import deepcopy
from typing import Annotated, Any, cast, get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from mvit.config import (
    Frozen,
    RunConfig,
    kind_of,
    variants,
)
from mvit.errors import ConfigError, Problem
from mvit.parent.request.rules import RULES, judge


def parse(raw: Mapping[str, Any]) -> RunConfig:
    """The typed configuration; raises `ConfigError` with every problem found."""
    _, problems = check(raw)
    if problems:
        raise ConfigError(*problems)
    return RunConfig.model_validate(dict(raw))


def check(raw: Mapping[str, Any]) -> tuple[dict[str, Any], list[Problem]]:
    """Sections that are valid by themselves, and the problems found in fields and between sections.

    Sections are judged one by one, so that a mistake in one does not hide another's.
    """
    raw = _given(raw)
    sections: dict[str, Any] = {}
    fields = list(RunConfig.model_fields)
    problems = [_unknown(key, fields) for key in raw if key not in fields]
    hints = get_type_hints(RunConfig, include_extras=True)
    for name, field in RunConfig.model_fields.items():
        if name not in raw:
            problems.append(Problem(name, None, "is missing", "take it from conf/config.yaml"))
            continue
        annotation = hints[name]
        adapter = TypeAdapter[Any](annotation) if variants(annotation) else _plain(annotation, field)
        try:
            sections[name] = adapter.validate_python(raw[name])
        except ValidationError as error:
            # A list that is too short is an error for each place it lacks, and one problem.
            found = (_translate(name, annotation, item) for item in error.errors())
            problems += {str(problem): problem for problem in found}.values()
            if all(item["type"] == "extra_forbidden" for item in error.errors()):
                # Unknown keys aside, the section is legal: let the rules see it too.
                extra = [_place(variants(annotation), list(item["loc"]))[0] for item in error.errors()]
                sections[name] = adapter.validate_python(_without(raw[name], extra))
    return sections, problems + list(judge(RULES, sections))


def _given(value: Any) -> Any:
    """A copy without what OmegaConf marks as still to be given."""
    if not isinstance(value, Mapping):
        return value
    pairs = cast(Mapping[str, Any], value).items()
    return {key: _given(inner) for key, inner in pairs if inner != "???"}


def _without(section: Mapping[str, Any], paths: list[list[Any]]) -> dict[str, Any]:
    """A copy without the keys at `paths`."""
    copy = deepcopy(dict(section))
    for *inner, last in paths:
        place = copy
        for part in inner:
            place = place[part]
        del place[last]
    return copy


def _plain(annotation: Any, field: FieldInfo) -> TypeAdapter[Any]:
    """Judges a field that is no model; strict, as the models are."""
    constrained = cast(Any, Annotated)[annotation, field]  # made at run time: no type to a checker
    return TypeAdapter[Any](constrained, config=ConfigDict(strict=True))


def nearest(word: str, words: list[str]) -> str:
    """`did you mean ...?` for the closest word, or the choice there is."""
    found = difflib.get_close_matches(word, words, n=1, cutoff=0.6)
    return f"did you mean {found[0]}?" if found else f"use one of: {', '.join(sorted(words))}"


def _unknown(path: str, siblings: list[str]) -> Problem:
    prefix = path.rpartition(".")[0]
    legal = [f"{prefix}.{name}" if prefix else name for name in siblings if name != "kind"]
    return Problem(path, None, "is no key of the configuration", nearest(path, legal) if legal else "remove it")


def _translate(section: str, annotation: Any, error: Any) -> Problem:
    where, models, siblings = _place(variants(annotation), list(error["loc"]))
    path = ".".join([section, *(str(part) for part in where)])
    value = error["input"]
    meant = _purpose(siblings, where) if siblings else _purpose([RunConfig], [section])
    match error["type"]:
        case "extra_forbidden":
            options = variants(annotation)
            if others := [kind_of(model) for model in options if len(where) == 1 and where[0] in model.model_fields]:
                rule = f"is no key of {section} of kind {kind_of(siblings[0])}"
                return Problem(path, None, rule, f"leave it out, or choose one of kind {', '.join(others)}")
            return _unknown(path, [name for model in siblings for name in model.model_fields])
        case "missing" if where and isinstance(where[-1], int):
            return Problem(path.rpartition(".")[0], value, "has too few values", meant)
        case "missing":
            return Problem(path, None, "has no value", f"set {path}=...")
        case "union_tag_invalid" | "union_tag_not_found":
            found = error["ctx"].get("tag", value)
            rule = f"is no kind of {str(where[-1]) if where else section}"
            return Problem(f"{path}.kind", found, rule, nearest(str(found), [kind_of(model) for model in models]))
        case "model_type" | "model_attributes_type" | "dict_type":
            return Problem(path, value, "is no group of keys", meant)
        case _:
            message = error["msg"][0].lower() + error["msg"][1:]
            value = "null" if value is None else value
            return Problem(path, value, f"is refused: {message}", meant)


def _place(models: list[type[Frozen]], location: list[Any]) -> tuple[list[Any], list[type[Frozen]], list[type[Frozen]]]:
    """The keys of an error's location, the models it leads to, and those whose field its last key is.

    pydantic puts the chosen member of a union into the location, which is no key.
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
    return "see docs/configuration.md"
