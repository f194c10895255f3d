"""How two runs differ: what they were asked for, what made them, what they came to."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, cast

from mvit.files import file_digest, read_mapping
from mvit.parent.report.grid import Grid
from mvit.parent.report.record import Record, Value, flat
from mvit.rundir.checkpoints import tagged
from mvit.rundir.frozen import OF_THE_LAUNCHER
from mvit.rundir.journal import JournalReader, series_of
from mvit.rundir.paths import RunDir

MADE_OF = ("mvit", "commit", "num_changed", "num_untracked", "python", "platform", "host", "cpu", "processors_usable")
"""Facts of provenance.json that may explain a difference; versions of packages come after them."""
CURVES = ("val/acc1", "val/ema_acc1", "train/loss")
BLOCKS = "▁▂▃▄▅▆▇█"
WIDTH = 60
"""Characters of a curve, at most."""


@dataclass(frozen=True)
class Fact:
    """Something that is not the same; `-` where a run does not have it."""

    section: str
    name: str
    first: str
    second: str
    difference: str = ""


def differences(first: Record, second: Record) -> list[Fact]:
    """What two runs do not have in common, section by section; nothing if they are equal to the bit."""
    sections: dict[str, Callable[[Record], Mapping[str, Value]]] = {
        "configuration": _configuration,
        "code": _made_of,
        "data": _data,
        "plan": _plan,
        "result": lambda record: record.metrics,
        "weights": _weights,
        "answers": _answers,
    }
    return [fact for section, read in sections.items() for fact in _facts(section, read(first), read(second))]


def grid_of(facts: Sequence[Fact], *, names: tuple[str, str]) -> Grid:
    """The differences as a table under the names of the runs."""
    headings = ("", "what", *names, "difference")
    rows: list[dict[str, str]] = []
    section = ""
    for fact in facts:
        values = {names[0]: fact.first, names[1]: fact.second, "difference": fact.difference}
        rows.append({"": fact.section if fact.section != section else "", "what": fact.name, **values})
        section = fact.section
    return Grid(headings, rows).without_empty_columns()


def curves(first: Record, second: Record, *, names: tuple[str, str]) -> Iterator[str]:
    """What both runs have logged several times, as lines of blocks on a common scale."""
    every = [series_of(JournalReader(record.folder.journal).entries()) for record in (first, second)]
    longest = max(map(len, names))
    for key in CURVES:
        mine = [[value for _, value in series.get(key, [])] for series in every]
        if min(map(len, mine)) < 2:
            continue
        low, high = (bound(value for values in mine for value in values) for bound in (min, max))
        yield f"{key}, {low:.4g} to {high:.4g}"
        for name, values in zip(names, mine, strict=True):
            yield f"  {name.ljust(longest)}  {sparkline(values, low=low, high=high)}"


def sparkline(values: Sequence[float], *, low: float, high: float) -> str:
    """A character for each value, or for as many as fit."""
    step = max(1.0, len(values) / WIDTH)
    chosen = [values[int(index * step)] for index in range(min(len(values), WIDTH))]
    span = (high - low) or 1.0
    return "".join(BLOCKS[min(len(BLOCKS) - 1, int((value - low) / span * len(BLOCKS)))] for value in chosen)


def _facts(section: str, first: Mapping[str, Value], second: Mapping[str, Value]) -> Iterator[Fact]:
    for key in dict.fromkeys((*first, *second)):
        one, other = first.get(key), second.get(key)
        if one != other:
            yield Fact(section, key, _shown(one), _shown(other), _difference(one, other))


def _configuration(record: Record) -> Mapping[str, Value]:
    """But for where the run is kept and followed."""
    if record.run is None:
        return {}
    return flat(record.run.config.model_dump(mode="json", exclude={"runs_dir", "tracking", *OF_THE_LAUNCHER}))


def _made_of(record: Record) -> Mapping[str, Value]:
    content = read_mapping(record.folder.provenance) or {}
    versions = cast("dict[str, Any]", content.get("versions") or {})
    return {**{key: cast(Value, content.get(key)) for key in MADE_OF}, **versions, "patch": _patch(record.folder)}


def _patch(folder: RunDir) -> str:
    """The uncommitted changes: how many lines they have, and which."""
    with suppress(OSError):
        return f"{len(folder.patch.read_bytes().splitlines())} lines, sha256 {file_digest(folder.patch)[:8]}"
    return ""


def _data(record: Record) -> Mapping[str, Value]:
    if record.run is None:
        return {}
    data = record.run.plan.dataset
    return {"fingerprint": data.fingerprint, "train images": data.num_train, "val images": data.num_val}


def _plan(record: Record) -> Mapping[str, Value]:
    if record.run is None:
        return {}
    plan = record.run.plan
    kernels = plan.kernels.isa or "plain"
    return {"cards": plan.world_size, "device": plan.device, "threads of a process": plan.threads, "kernels": kernels}


def _weights(record: Record) -> Mapping[str, Value]:
    """The last checkpoint, by the sha256 of its tensors."""
    last = tagged(record.folder.checkpoints, "last")
    with suppress(OSError, ValueError):
        return {"last checkpoint, sha256": last.read_sidecar().sha256} if last else {}
    return {}


def _answers(record: Record) -> Mapping[str, Value]:
    """What a prediction says of its images, by the sha256 of the file."""
    with suppress(OSError):
        return {"sha256 of answers.jsonl": file_digest(record.folder.answers)}
    return {}


def _shown(value: Value) -> str:
    if value is None or value == "":
        return "-"
    if isinstance(value, float):
        return f"{value:.6g}"
    return value[:12] if isinstance(value, str) and len(value) in (40, 64) and value.isalnum() else str(value)


def _difference(first: Value, second: Value) -> str:
    """In numbers, where both are measured."""
    if isinstance(first, float) and isinstance(second, float):
        return f"{second - first:+.4g}"
    return ""
