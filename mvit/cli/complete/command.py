"""What may end a command of python -m mvit: its commands, their options and values, runs, keys."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence

from mvit.cli.complete import launch, runs
from mvit.cli.complete.candidate import Candidate
from mvit.cli.complete.line import Line


def candidates(line: Line) -> Iterator[Candidate]:
    """For the last word after python -m mvit; none where it is a path or a text."""
    from mvit.cli.main import about_commands, parsers

    _, commands = parsers()
    if not line.words:
        yield from (Candidate(name, about) for name, about in about_commands(commands).items())
    elif command := commands.choices.get(line.words[0]):
        yield from _of_command(command, line.words[1:], line.current)


def _of_command(command: argparse.ArgumentParser, words: Sequence[str], current: str) -> Iterator[Candidate]:
    actions = command._actions  # pyright: ignore[reportPrivateUsage]  argparse has no public list of them
    options = {name: action for action in actions for name in action.option_strings}
    positionals = [action for action in actions if not action.option_strings]
    left = iter(words)
    count = 0
    waiting = None
    for word in left:
        waiting = option if (option := options.get(word)) and option.nargs != 0 else None
        if waiting and next(left, None) is not None:
            waiting = None
        elif not word.startswith("-"):
            count += 1
    name, equals, _ = current.partition("=")
    if waiting:
        yield from _values(waiting, words, current)
    elif current.startswith("-") and equals and name in options:
        yield from (Candidate(f"{name}={one.word}", one.about) for one in _values(options[name], words, current))
    elif current.startswith("-"):
        yield from (Candidate(name, _about(action)) for name, action in options.items() if name not in words)
    elif positionals and (count < len(positionals) or positionals[-1].nargs in ("*", "+")):
        yield from _values(positionals[min(count, len(positionals) - 1)], words, current)


def _values(action: argparse.Action, words: Sequence[str], current: str) -> Iterator[Candidate]:
    if action.choices is not None:
        yield from map(Candidate, map(str, action.choices))
    elif action.metavar == "RUN":
        yield from runs.candidates()
    elif action.metavar == "key=value":
        yield from launch.overrides(words, current, with_groups=False)  # which are for a launch


def _about(action: argparse.Action) -> str:
    text = "" if action.help in (None, argparse.SUPPRESS) else str(action.help)
    return text % {**vars(action), "prog": ""} if "%" in text else text
