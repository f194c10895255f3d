"""python -m mvit docs: the reference of the configuration."""

from __future__ import annotations

import argparse

from mvit.cli.arguments import Commands


def add_to(commands: Commands) -> None:
    parser = commands.add_parser(
        "docs",
        help="print the reference of the configuration",
        description="Print the meaning of every key of the configuration, as docs/configuration.md has it.",
    )
    parser.set_defaults(act=act)


def act(_: argparse.Namespace) -> int:
    from mvit.reference import configuration

    print(configuration(), end="")
    return 0
