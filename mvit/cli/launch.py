"""python -m mvit launch: the same as launch.py, one run or several from configuration and overrides."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from mvit.cli import overview
from mvit.cli.arguments import Commands

NAME = "launch"


def add_to(commands: Commands) -> None:
    """For the list of commands alone: Hydra reads the words after it, and `--help` among them."""
    commands.add_parser(NAME, help="start a run, or with -m several: launch --help", add_help=False)


def act(words: Sequence[str]) -> int:
    if overview.is_asked(words):  # before what takes a second to load
        sys.stdout.write(overview.overview())
        return 0
    from mvit.cli.hydra_entry import start

    return start(words)
