"""Overrides of a run that exists: `key=value` on the values of its configuration."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, cast

from mvit.config import RunConfig
from mvit.errors import ConfigError, Problem


def overridden(config: RunConfig, overrides: Sequence[str]) -> dict[str, Any]:
    """A copy with `key=value` set; raises `ConfigError`. Groups are chosen at the launch, not here."""
    raw = config.model_dump(mode="json")
    problems: list[Problem] = []
    for override in overrides:
        key, equals, text = override.partition("=")
        *inner, last = key.lstrip("+").split(".")
        place: Any = raw
        for part in inner:
            place = cast(dict[str, Any], place).get(part) if isinstance(place, dict) else None
        if not equals or not isinstance(place, dict) or last not in place:
            remedy = "set one of run.json's, as optimizer.lr=1e-3"
            problems.append(Problem(override, None, "sets no value of the run", remedy))
            continue
        section = cast(dict[str, Any], place)
        if isinstance(section[last], dict):
            problems.append(Problem(override, None, "chooses a group", "set its single values, as optimizer.lr=1e-3"))
            continue
        section[last] = text if isinstance(section[last], str) else _value(text)
    if problems:
        raise ConfigError(*problems)
    return raw


def _value(text: str) -> Any:
    """Numbers, true, false, null and lists of them; all else is text."""
    with suppress(ValueError):
        return json.loads(text)
    if text.startswith("[") and text.endswith("]"):
        return [_value(part.strip()) for part in text[1:-1].split(",")]
    return text
