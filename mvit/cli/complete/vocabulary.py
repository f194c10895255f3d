"""The vocabulary of a request: the groups and keys of each task and the values that can be listed, kept in a file.

The typed configuration takes half a second to load, too long to wait for at a Tab: what is completed is read from it
once, and again after it has changed.
"""

from __future__ import annotations

import json
import types
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Union, get_args, get_origin

from mvit.caches import cache_folders

if TYPE_CHECKING:
    from mvit.config import Frozen

PACKAGE = Path(__file__).resolve().parents[2]
SOURCES = (PACKAGE / "config.py", PACKAGE / "sweep_config.py", Path(__file__))
"""What it is made of."""


class Key(NamedTuple):
    path: str
    about: str
    values: list[str]
    """Those that can be listed."""
    kinds: list[str]
    """The kinds of its section that have it; empty where all do."""


class Vocabulary(NamedTuple):
    """Of one task."""

    groups: list[str]
    keys: list[Key]


def vocabulary(task: str) -> Vocabulary:
    """That of a task, or else of training."""
    every = _kept() or _kept_anew()
    groups, keys = every.get(task) or every["train"]
    return Vocabulary(groups, [Key(*key) for key in keys])


def _stamp() -> list[list[int | str]]:
    return [[str(path), (facts := path.stat()).st_mtime_ns, facts.st_size] for path in SOURCES]


def _files() -> Iterator[Path]:
    for folder in cache_folders("completion"):
        yield folder / "vocabulary.json"


def _kept() -> dict[str, Any] | None:
    stamp = _stamp()
    for file in _files():
        with suppress(OSError, ValueError, KeyError, TypeError):
            content = json.loads(file.read_bytes())
            if content["of"] == stamp:
                return content["tasks"]
    return None


def _kept_anew() -> dict[str, Any]:
    from mvit.files import write_json

    tasks = made()
    for file in _files():
        with suppress(OSError):
            file.parent.mkdir(parents=True, exist_ok=True)
            write_json(file, {"of": _stamp(), "tasks": tasks})
            break
    return tasks


def made() -> dict[str, Vocabulary]:
    """That of every task, from the types of its configuration."""
    from mvit.config import TASKS, variants
    from mvit.sweep_config import SweepRequest

    sweep = variants(SweepRequest.model_fields["sweep"].annotation)
    return {
        task: Vocabulary(
            groups=[
                *(name for name, field in model.model_fields.items() if variants(field.annotation)),
                *("experiment", "sweep", "sweep/pruner"),
            ],
            keys=[*_keys(model), *_of_section("sweep", sweep)],
        )
        for task, model in TASKS.items()
    }


def _keys(model: type[Frozen], prefix: str = "") -> Iterator[Key]:
    from mvit.config import variants

    for name, field in model.model_fields.items():
        path, models = f"{prefix}{name}", variants(field.annotation)
        if name == "kind":
            continue
        if not models or get_origin(field.annotation) is tuple or _values(field.annotation):
            yield Key(path, field.description or "", _values(field.annotation), [])
        if get_origin(field.annotation) is not tuple:
            yield from _of_section(path, models)


def _of_section(path: str, models: list[type[Frozen]]) -> Iterator[Key]:
    """The keys below a path, with the kinds that have each where there are several."""
    from mvit.config import kind_of

    found: dict[str, tuple[Key, list[str]]] = {}
    for model in models:
        for key in _keys(model, f"{path}."):
            found.setdefault(key.path, (key, []))[1].append(kind_of(model) if "kind" in model.model_fields else "")
    if len(models) > 1 and "." in path:
        yield Key(f"{path}.kind", "", list(map(kind_of, models)), [])
    for key, kinds in found.values():
        # A group of the command line names a kind of its own section; below that, the key says it itself.
        yield key._replace(kinds=kinds) if "." not in path and len(kinds) < len(models) else key


def _values(annotation: Any) -> list[str]:
    """The values of a type that can be listed."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if annotation is bool:
        return ["true", "false"]
    if annotation is type(None):
        return ["null"]
    if origin is Literal:
        return list(map(str, arguments))
    if origin in (Union, types.UnionType):
        return [value for argument in arguments for value in _values(argument)]
    return _values(arguments[0]) if hasattr(annotation, "__metadata__") else []
