"""docs/configuration.md, made from the fields of the tasks' configurations and the files in conf/."""

from __future__ import annotations

import types
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from pydantic.fields import FieldInfo

from mvit.config import TASKS, CommonConfig, Frozen, kind_of, variants

CONF = Path(__file__).resolve().parents[1] / "conf"


def configuration() -> str:
    """The whole page."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    yield "# Configuration"
    yield ""
    yield "Made by `make docs` from `mvit/config.py`; do not edit. Any key is set on the command line as `key=value`; a"
    yield "group takes one of its files in `conf/` as `group=option`. What a task does not use cannot be set."
    yield ""
    yield "| key | value | meaning |"
    yield "|---|---|---|"
    for name in _fields():
        if name not in _groups():
            skip = set(_owner(name).model_fields) - {name}
            yield from _rows("", _owner(name), skip, {name: _used_by(name)})
    yield ""
    for group, models in _groups().items():
        yield f"## {group}"
        yield ""
        if note := _used_by(group).strip():
            yield note
            yield ""
        options = sorted(path.stem for path in (CONF / group).glob("*.yaml"))
        yield f"`{group}=` " + ", ".join(f"`{option}`" for option in options)
        yield ""
        for model in models:
            if len(models) > 1:
                yield f"### {group}.kind: {kind_of(model)}"
                yield ""
            if model.__doc__:
                yield model.__doc__.strip()
                yield ""
            notes = {key: _used_by(group, key=key) for key in model.model_fields} if len(models) == 1 else {}
            yield from _table(f"{group}.", model, skip={"kind"}, notes=notes)


def _fields() -> list[str]:
    """The keys and groups of all tasks, the common ones first."""
    names = [*CommonConfig.model_fields, *(name for model in TASKS.values() for name in model.model_fields)]
    return list(dict.fromkeys(names))


def _owner(name: str) -> type[CommonConfig]:
    return next(model for model in TASKS.values() if name in model.model_fields)


def _used_by(name: str, *, key: str | None = None) -> str:
    """Which tasks use a section, or a key of it, where not all do."""
    runs = {task: model for task, model in TASKS.items() if name in model.model_fields}
    users = [
        task for task, run in runs.items() if not key or any(key in one.model_fields for one in _models(run, name))
    ]
    everyone = runs if key else TASKS
    return "" if len(users) == len(everyone) else f" Only for {', '.join(f'`task={task}`' for task in users)}."


def _groups() -> dict[str, list[type[Frozen]]]:
    """The models of each group, of all tasks that have it."""
    found: dict[str, list[type[Frozen]]] = {}
    for name in _fields():
        models = [model for run in TASKS.values() if name in run.model_fields for model in _models(run, name)]
        if models:  # what one task adds to another's model is a key of one table
            extended = {base for model in models for base in model.__mro__[1:]}
            found[name] = [model for model in dict.fromkeys(models) if model not in extended]
    return found


def _models(run: type[CommonConfig], name: str) -> list[type[Frozen]]:
    return variants(get_type_hints(run, include_extras=True)[name])


def _table(prefix: str, model: type[Frozen], *, skip: set[str], notes: Mapping[str, str]) -> Iterator[str]:
    rows = list(_rows(prefix, model, skip, notes))
    if not rows:
        return
    yield "| key | value | meaning |"
    yield "|---|---|---|"
    yield from rows
    yield ""


def _rows(prefix: str, model: type[Frozen], skip: set[str], notes: Mapping[str, str]) -> Iterator[str]:
    for name, field in model.model_fields.items():
        if name in skip:
            continue
        meaning = f"{field.description}{notes.get(name, '')}"
        yield f"| `{prefix}{name}` | {_kind(field.annotation, field.metadata)} | {meaning} |"
        inner = variants(field.annotation)
        for model in inner:
            if len(inner) == 1:
                yield from _rows(f"{prefix}{name}.", model, set(), {})
            else:
                yield f"| `{prefix}{name}.kind` | `{kind_of(model)}` | {(model.__doc__ or '').strip()} |"
                yield from _rows(f"{prefix}{name}.", model, {"kind"}, {})


def _kind(annotation: Any, metadata: list[Any]) -> str:
    """A type in words, with its limits."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if annotation is type(None):
        return "null"
    if origin is Literal:
        return " \\| ".join(f"`{value}`" for value in arguments)
    if origin in (Union, types.UnionType):
        return " or ".join(_kind(argument, []) for argument in arguments)
    if origin is tuple and arguments[-1] is Ellipsis:
        return f"list of {_kind(arguments[0], [])}"
    if origin is tuple:
        return f"{len(arguments)} x {_kind(arguments[0], [])}"
    if hasattr(annotation, "__metadata__"):
        return _kind(arguments[0], list(annotation.__metadata__))
    if isinstance(annotation, type) and issubclass(annotation, Frozen):
        return "keys below"
    words = {int: "integer", float: "number", str: "text", bool: "`true` \\| `false`"}[annotation]
    limits = [text for item in metadata for text in _limits(item)]
    return f"{words} {', '.join(limits)}".strip()


def _limits(item: Any) -> Iterator[str]:
    if isinstance(item, FieldInfo):
        for inner in item.metadata:
            yield from _limits(inner)
    for name, sign in (("ge", ">="), ("gt", ">"), ("le", "<="), ("lt", "<")):
        if getattr(item, name, None) is not None:
            yield f"{sign} {getattr(item, name):g}"
