"""python -m mvit: launches, and what works on existing runs, stores, weights and images."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from types import ModuleType

from mvit import __version__
from mvit.cli import (
    cache,
    check,
    completion,
    diff,
    digits,
    docs,
    doctor,
    init,
    launch,
    ls,
    pack,
    publish,
    register,
    reproduce,
    resume,
    run,
    stop,
    sync,
    synthetic,
    table,
    ui,
    weights,
)
from mvit.cli.arguments import Commands
from mvit.program import LAUNCH, MVIT

GROUPS = {
    "results": (ls, table, diff, check),
    "runs": (launch, run, resume, stop, reproduce),
    "MLflow": (ui, sync, register),
    "images and weights": (init, digits, synthetic, pack, weights),
    "this machine": (doctor, cache, completion),
    "this repository": (publish, docs),
}
COMMANDS = tuple(command for group in GROUPS.values() for command in group)
EPILOG = f"""\
`{LAUNCH}` starts a run, `{LAUNCH} --help` says what it can be.
`{MVIT} COMMAND --help` lists the options of a command. RUN is a run's
folder, its short id such as b280, or its MLflow run id; likewise a sweep's.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit codes as launch.py: 0 done, 1 failed, 2 the request was wrong, 130 and 143 stopped by a signal."""
    words = sys.argv[1:] if arguments is None else arguments
    if words and words[0] == launch.NAME:
        return launch.act(words[1:])
    parser, _ = parsers()
    parsed, rest = parser.parse_known_args(words)
    if "overrides" in parsed and not any(argument.startswith("-") for argument in rest):
        parsed.overrides += rest  # argparse loses the overrides that follow an option
    elif rest:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    return parsed.act(parsed)


def parsers() -> tuple[argparse.ArgumentParser, Commands]:
    """The parser of the command line, and those of the commands."""
    parser = argparse.ArgumentParser(
        prog=MVIT,
        usage=f"{MVIT} [-h] [--version] COMMAND ...",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"mvit {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", prog=MVIT, help=argparse.SUPPRESS)
    for command in COMMANDS:
        command.add_to(commands)
    parser.description = "\n".join(_described(about_commands(commands)))
    return parser, commands


def about_commands(commands: Commands) -> dict[str, str]:
    """What each command does, in a line."""
    # argparse would list them below one heading alone, and has no public name for what it lists.
    listed = commands._choices_actions  # pyright: ignore[reportPrivateUsage]
    return {one.dest: one.help or "" for one in listed}


def _described(about: Mapping[str, str]) -> Iterator[str]:
    """Every command with what it does, by group."""
    yield "Work with runs, and with what they need: stores, weights, images."
    for heading, group in GROUPS.items():
        yield f"\n{heading}:"
        for name in map(name_of, group):
            yield f"  {name:<12}{about[name]}"


def name_of(command: ModuleType) -> str:
    return command.__name__.rpartition(".")[2]
