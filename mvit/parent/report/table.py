"""Result rows as a person reads them: one run as pairs, the trials of a sweep as a table; at most 100 columns wide."""

from __future__ import annotations

import textwrap
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

WIDTH = 100
"""Columns of a terminal that every line fits."""
LONGEST = 80
"""Characters of a value beside its name."""
NARROWEST = 12
"""Characters that are left of a long word where a table is too wide."""
MISSING = "-"
BUSY_CORES = 0.25
"""Processor time of others, in cores, that is worth a word beside a speed."""

_SETTINGS = {
    "model": "model name",
    "recipe": "recipe",
    "devices": "cards",
    "batch": "global batch",
    "per device": "batch size",
    "resolution": "resolution",
    "jit level": "jit level",
}
_NUMBERS = {
    "acc@1": "acc@top1",
    "best": "best acc@top1",
    "acc@5": "acc@top5",
    "img/s": "img/s",
    "ms/step": "ms/step",
    "compile": "graph compile",
}
"""Heading and key of the result row. A table that is too wide loses the last numbers first, the first two never."""


@dataclass(frozen=True)
class TrialResult:
    """The result of a trial, and what distinguishes it."""

    trial: str
    """The name of its folder."""
    overrides: Sequence[str]
    row: Mapping[str, str]
    is_best: bool = False


@dataclass(frozen=True)
class Label:
    """A trial by what distinguishes it, as `lr=0.001 model=x_small`."""

    values: tuple[tuple[str, str], ...] = ()
    """Names of keys, as short as they may be, each with its value."""
    otherwise: str = ""
    """What it is called where nothing distinguishes it."""

    def __str__(self) -> str:
        return " ".join(f"{name}={value}" for name, value in self.values) or self.otherwise


@dataclass(frozen=True)
class _Column:
    heading: str
    cells: tuple[str, ...]
    is_number: bool = False
    may_go: bool = True
    key: str = ""
    """Of the overrides that it shows."""

    @property
    def width(self) -> int:
        return max(map(len, (self.heading, *self.cells)))

    def cut(self, width: int) -> _Column:
        return replace(self, heading=_cut(self.heading, width), cells=tuple(_cut(cell, width) for cell in self.cells))

    def line(self, cell: str) -> str:
        return cell.rjust(self.width) if self.is_number else cell.ljust(self.width)

    def rule(self) -> str:
        return "-" * (self.width - 1) + (":" if self.is_number else "-")


def result_lines(row: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """The result of one run, as lines of (what, value)."""
    yield "model", _cut(f"{row['model name']}, {row['params(M)']} M parameters", LONGEST)
    yield "recipe", _cut(row["recipe"], LONGEST)
    level = "" if row["jit level"] == MISSING else f", jit level {row['jit level']}"
    yield "devices", f"{row['cards']}{level}"
    yield "batch", _cut(f"{row['global batch']} global, {row['batch size']} per device", LONGEST)
    yield "resolution", _cut(row["resolution"], LONGEST)
    yield "compile", row["graph compile"]
    if row["img/s"] != MISSING:
        yield "speed", f"{row['img/s']} img/s, {row['ms/step']} ms/step{_under_load(row['load'])}"
    best = row["best acc@top1"]
    yield "acc@1", _percent(row["acc@top1"]) + ("" if best == MISSING else f" last, {_percent(best)} best")
    yield "acc@5", _percent(row["acc@top5"])
    yield "weights", _cut(row["weights"], LONGEST)


def _under_load(load: str) -> str:
    """What makes a speed doubtful."""
    cores = float(load.partition(" ")[0]) if load != MISSING else 0.0
    return f", while other processes used {load}" if cores > BUSY_CORES else ""


def sweep_lines(results: Sequence[TrialResult]) -> Iterator[str]:
    """The results of several trials: what all have in common, then a row of Markdown for each; the best have a star."""
    rows = [result.row for result in results]
    common = {name: rows[0][key] for name, key in _SETTINGS.items() if len({row[key] for row in rows}) == 1}
    settings = ", ".join(f"{name} {value}" for name, value in common.items() if value != MISSING)
    if settings:
        yield from textwrap.wrap(f"all trials: {settings}", WIDTH, subsequent_indent="  ")
    names = tuple(f"{_short(result.trial)}{' *' if result.is_best else ''}" for result in results)
    columns = [_Column("trial", names, may_go=False)]
    columns += _varied(results)
    chosen = [column.cells for column in columns]
    for name, key in _SETTINGS.items():
        cells = tuple(row[key] for row in rows)
        if name not in common and cells not in chosen:  # as the model that an override names
            columns.append(_Column(name, cells))
    for index, (name, key) in enumerate(_NUMBERS.items()):
        cells = tuple(row[key] for row in rows)
        if set(cells) != {MISSING}:
            columns.append(_Column(name, cells, is_number=True, may_go=index > 1))
    yield from _table(_fitting(columns))


def labels_of(trials: Sequence[Sequence[str]]) -> list[Label]:
    """Each trial by the overrides in which it differs from another."""
    varied = {column.key for column in _varied([TrialResult("", list(overrides), {}) for overrides in trials])}
    return [label_of(overrides, varied, otherwise=f"trial-{number}") for number, overrides in enumerate(trials)]


def label_of(overrides: Sequence[str], keys: Collection[str], *, otherwise: str = "") -> Label:
    """A trial by its overrides of these keys."""
    mine = [key for override in overrides if (key := _key(override)) in keys]
    names = _headings(mine)
    return Label(tuple((name, _value(overrides, key)) for name, key in zip(names, mine, strict=True)), otherwise)


def _varied(results: Sequence[TrialResult]) -> list[_Column]:
    """A column for each key whose override differs, under the last part of the key where that says enough."""
    keys = dict.fromkeys(_key(override) for result in results for override in result.overrides)
    cells = {key: tuple(_value(result.overrides, key) for result in results) for key in keys}
    varied = [key for key in keys if len(set(cells[key])) > 1]
    return [_Column(name, cells[key], key=key) for key, name in zip(varied, _headings(varied), strict=True)]


def _headings(keys: Sequence[str]) -> list[str]:
    """The last part of each key, where that tells it from the others and from a column of every table."""
    leaves = [key.rpartition(".")[2] for key in keys]
    taken = {"trial", *_SETTINGS, *_NUMBERS} - {"model"}
    return [
        leaf if leaves.count(leaf) == 1 and leaf not in taken else key for key, leaf in zip(keys, leaves, strict=True)
    ]


def _value(overrides: Sequence[str], key: str) -> str:
    return next((override.partition("=")[2] for override in overrides if _key(override) == key), MISSING)


def _key(override: str) -> str:
    return override.partition("=")[0].lstrip("+~")


def _fitting(columns: Sequence[_Column]) -> list[_Column]:
    """The columns in `WIDTH`: long words are cut, then numbers are left out, then words, from the end."""
    columns = list(columns)
    while (excess := sum(column.width + 3 for column in columns) + 1 - WIDTH) > 0:
        longest = max(range(len(columns)), key=lambda i: 0 if columns[i].is_number else columns[i].width)
        if not columns[longest].is_number and columns[longest].width > NARROWEST:
            columns[longest] = columns[longest].cut(max(NARROWEST, columns[longest].width - excess))
            continue
        may_go = [column for column in columns if column.may_go]
        columns.remove(([column for column in may_go if column.is_number] or may_go)[-1])
    return columns


def _table(columns: Sequence[_Column]) -> Iterator[str]:
    """Markdown; numbers are aligned to the right."""
    yield f"| {' | '.join(column.line(column.heading) for column in columns)} |"
    yield f"| {' | '.join(column.rule() for column in columns)} |"
    for number in range(len(columns[0].cells)):
        yield f"| {' | '.join(column.line(column.cells[number]) for column in columns)} |"


def _short(trial: str) -> str:
    """`07-20261123-132054-f029` as `07-f029`, by which `locate` finds it too."""
    parts = trial.split("-")
    return f"{parts[0]}-{parts[-1]}" if len(parts) > 2 else trial


def _percent(number: str) -> str:
    return number if number == MISSING else f"{number} %"


def _cut(text: str, width: int) -> str:
    """The text, without its middle where it is longer than `width`: names differ at their ends."""
    if len(text) <= width:
        return text
    head = (width - 1) // 2
    return f"{text[:head]}…{text[len(text) - (width - 1 - head) :]}"
