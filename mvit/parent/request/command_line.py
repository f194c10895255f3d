"""The words after launch.py: Hydra's flags, folders of configuration, and overrides."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from hydra._internal.utils import get_args_parser

from mvit.config import TrainRun
from mvit.errors import Problem
from mvit.parent.request import keys

_OPTIONS = get_args_parser()._option_string_actions  # argparse has no public list of them
MANY = ("--multirun", "-m")
RUNS = ("--run", "-r", *MANY)


@dataclass(frozen=True)
class CommandLine:
    """What a person typed, and what is wrong with its flags."""

    flags: tuple[str, ...]
    """Hydra's own, with their values, but for --config-dir."""
    config_dirs: tuple[Path, ...]
    overrides: tuple[str, ...]
    problems: tuple[Problem, ...]

    @property
    def shows(self) -> bool:
        """Whether Hydra prints something instead of running: help, the configuration, completions."""
        return any(flag not in RUNS for flag in self.flags)

    @property
    def completes(self) -> bool:
        """Whether a shell asks for its completions."""
        return any(flag.partition("=")[0] in ("--shell-completion", "-sc") for flag in self.flags)

    @property
    def many(self) -> bool:
        return any(flag in MANY for flag in self.flags)


def read(words: Sequence[str]) -> CommandLine:
    """Sort the words. Nothing is composed yet; an override is not looked at."""
    flags: list[str] = []
    config_dirs: list[Path] = []
    overrides: list[str] = []
    problems: list[Problem] = []
    left = iter(words)
    for word in left:
        if not word.startswith("-"):
            overrides.append(word)
            continue
        name, equals, value = word.partition("=")
        option = _option(name)
        if option is None:
            problems.append(_unknown(word, left))
            continue
        takes_value = _OPTIONS[option].nargs != 0
        if takes_value and not equals:
            value = next(left, "")
        if problem := _refused(option, name):
            problems.append(problem)
        elif option in ("--config-dir", "-cd"):
            config_dirs.append(Path(value))
        else:
            flags += [option, value] if takes_value and value else [option]
    return CommandLine(tuple(flags), tuple(config_dirs), tuple(overrides), tuple(problems))


def _option(name: str) -> str | None:
    """Hydra's flag, which argparse lets a person abbreviate."""
    if name in _OPTIONS:
        return name
    options = [option for option in _OPTIONS if name.startswith("--") and option.startswith(name)]
    return options[0] if options else None


def _refused(option: str, name: str) -> Problem | None:
    if option in ("--config-path", "-cp", "--config-name", "-cn"):
        return Problem(name, None, "would replace conf/", "add a folder with --config-dir")
    if option == "--experimental-rerun":
        return Problem(name, None, "would read a pickle, which can execute anything", "launch it anew")
    return None


def _unknown(word: str, left: Iterator[str]) -> Problem:
    """A flag of other programs: `--lr=1e-3` and `--epochs 3` are written without dashes here."""
    name, equals, value = word.partition("=")
    if not equals:
        value = next(left, "")
    key = keys.meant(name.lstrip("-").replace("-", "_"), keys.keys_of(TrainRun))
    if key is None:
        return Problem(name, None, "unknown flag", "write an option as train.epochs=3, without dashes")
    return Problem(name, None, "unknown flag", f"did you mean {key}={value}?")
