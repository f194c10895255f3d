"""The YAML files that a run is composed of: data of a sensible size, which executes nothing."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import yaml

from mvit.errors import ConfigError, Problem

LARGEST = 1 << 20
EXECUTES = ("_target_", "env_set", "env_copy")
"""Keys by which Hydra calls what is named, or gives the workers an environment, which can name a library to load."""
MOST_VALUES = 100_000
DEEPEST = 100
DEEPEST_GROUP = 3
"""Folders below the given ones that are looked at: `--config-dir=.` must not read a whole disk."""
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def must_be_sensible(folders: Iterable[Path]) -> None:
    """Raises `ConfigError` for what would take Hydra minutes and gigabytes; other faults of YAML are left to Hydra."""
    problems = [
        Problem(os.path.relpath(file), None, rule, "fix or remove it")
        for folder in folders
        for depth in range(DEEPEST_GROUP + 1)
        for file in sorted(folder.glob("*/" * depth + "*.yaml"))
        if (rule := _trouble(file))
    ]
    if problems:
        raise ConfigError(*problems)


def swept(folders: Iterable[Path]) -> frozenset[str]:
    """The keys that an experiment tries several values of, of files that `must_be_sensible` has seen."""
    keys: set[str] = set()
    for folder in folders:
        for file in folder.glob("experiment/*.yaml"):
            with suppress(OSError, yaml.YAMLError, KeyError, TypeError):
                keys |= yaml.safe_load(file.read_bytes())["hydra"]["sweeper"]["params"].keys()
    return frozenset(keys)


def _trouble(file: Path) -> str | None:
    try:
        if file.stat().st_size > LARGEST:
            return f"has more than {LARGEST >> 20} MiB"
        return _fault(file.read_bytes())
    except (OSError, yaml.YAMLError):
        return None


def _fault(text: bytes) -> str | None:
    """Counts the values with every alias replaced by what it stands for, without replacing any."""
    count = 0
    sizes: dict[str, int] = {}
    open_: list[tuple[str | None, int]] = []
    for event in cast(Any, yaml).parse(text, Loader=_LOADER):  # it carries no types
        match event:
            case yaml.AliasEvent() if event.anchor in [anchor for anchor, _ in open_]:
                return "has an alias of what it is part of"
            case yaml.ScalarEvent() if event.value in EXECUTES:
                return f"holds {event.value}: a configuration is data and executes nothing"
            case yaml.AliasEvent():
                count += sizes.get(event.anchor, 1)
            case yaml.ScalarEvent():
                count += 1
            case yaml.CollectionStartEvent():
                open_.append((event.anchor, count))
                count += 1
            case yaml.CollectionEndEvent():
                anchor, before = open_.pop()
                if anchor:
                    sizes[anchor] = count - before
            case _:
                pass
        if count > MOST_VALUES:
            return f"holds more than {MOST_VALUES} values, aliases included"
        if len(open_) > DEEPEST:
            return f"is nested more than {DEEPEST} deep"
    return None
