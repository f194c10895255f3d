"""What may end a request for a run: groups and their options, keys and their values, Hydra's flags."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

from mvit.cli.complete import runs
from mvit.cli.complete.candidate import Candidate
from mvit.cli.complete.line import Line
from mvit.cli.complete.vocabulary import Key, vocabulary
from mvit.cli.overview import CONF, options_of

FLAGS = (
    Candidate("-m", "several runs"),
    Candidate("--multirun", "several runs"),
    Candidate("--cfg", "print the configuration"),
    Candidate("--config-dir", "a folder of more options"),
    Candidate("--help", "print the commands and the groups"),
    Candidate("--hydra-help", "print all flags"),
)
CFG = ("job", "hydra", "all")
TAKE_A_VALUE = ("--cfg", "--config-dir")
NAME_A_RUN = ("task.checkpoint", "init.checkpoint")


def candidates(line: Line) -> Iterator[Candidate]:
    """For the last word after launch.py; none where it is a path."""
    before = "".join(line.words[-1:])
    if before in TAKE_A_VALUE:
        return map(Candidate, CFG if before == "--cfg" else ())
    if line.current.startswith("-"):
        return iter(FLAGS)
    folders = [CONF, *(Path(folder) for flag, folder in pairwise(line.words) if flag == "--config-dir")]
    return overrides(line.words, line.current, folders=folders)


def overrides(
    words: Sequence[str], current: str, *, folders: Sequence[Path] = (CONF,), with_groups: bool = True
) -> Iterator[Candidate]:
    """For an override after others, which choose the task and the kinds of sections."""
    chosen = {key.lstrip("+"): option for key, _, option in (word.partition("=") for word in words)}
    known = vocabulary(chosen.get("task", "train"))
    keys = [key for key in known.keys if _is_of(key, chosen)]
    sign = current[: len(current) - len(current.lstrip("+~"))]
    path, equals, value = current.removeprefix(sign).partition("=")
    if equals:
        before = value[: value.rfind(",") + 1]  # of a sweep
        for one in _values(path, known.groups, keys, folders):
            if one.word not in before.split(","):
                yield Candidate(f"{sign}{path}={before}{one.word}", one.about)
        return
    for group in known.groups if with_groups else ():
        yield Candidate(f"{sign}{group}=", ", ".join(options_of(group, folders)))
    yield from (Candidate(f"{sign}{one.word}", one.about) for one in _paths(path, keys))


def _is_of(key: Key, chosen: dict[str, str]) -> bool:
    """Whether the kind of its section that was chosen has the key; where none was, whether any has."""
    section = key.path.partition(".")[0]
    kind = _kind(section, chosen[section]) if key.kinds and section in chosen else None
    return kind is None or kind in key.kinds


def _kind(group: str, option: str) -> str | None:
    """The kind of an option; None where its file does not say."""
    file = CONF / group / f"{option}.yaml"
    found = re.search(r"^kind: (\w+)$", file.read_text(encoding="utf-8"), re.MULTILINE) if file.is_file() else None
    return found[1] if found else None


def _values(path: str, groups: Sequence[str], keys: Sequence[Key], folders: Sequence[Path]) -> Iterator[Candidate]:
    if path in groups:
        yield from map(Candidate, options_of(path, folders))
    if path in NAME_A_RUN:
        yield from runs.candidates()
    yield from (Candidate(value) for key in keys if key.path == path for value in key.values)


def _paths(path: str, keys: Sequence[Key]) -> Iterator[Candidate]:
    """Keys, up to the next dot after what is typed."""
    seen: set[str] = set()
    for key in keys:
        if not key.path.startswith(path):
            continue
        section, dot, _ = key.path[len(path) :].partition(".")
        word = f"{path}{section}{dot or '='}"
        if word not in seen:
            seen.add(word)
            yield Candidate(word, "" if dot else key.about)
