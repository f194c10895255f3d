"""python -m mvit docs: the generated pages of the manual."""

from __future__ import annotations

import argparse

from mvit.cli.arguments import Commands


def add_to(commands: Commands) -> None:
    parser = commands.add_parser(
        "docs",
        help="print a generated page of the manual",
        description="Print docs/configuration.md or docs/reference/commands.md, which are generated from the code.",
    )
    parser.add_argument(
        "page", nargs="?", choices=("configuration", "commands"), default="configuration", help="default: %(default)s"
    )
    parser.set_defaults(act=act)


def act(arguments: argparse.Namespace) -> int:
    from mvit.cli.main import parsers
    from mvit.reference import commands, configuration

    print(commands(parsers()[1].choices) if arguments.page == "commands" else configuration(), end="")
    return 0
