"""python -m mvit ls: the runs that there are."""

from __future__ import annotations

import argparse

from mvit.cli.arguments import Commands
from mvit.parent.report.formats import FORMATS


def add_to(commands: Commands) -> None:
    parser = commands.add_parser(
        "ls",
        help="list the runs, the newest one last",
        description="List runs, and sweeps with what their trials came to; the newest one is last.",
    )
    add_selection(parser)
    parser.add_argument("-t", "--trials", action="store_true", help="list the trials of each sweep, too")
    parser.set_defaults(act=act)


def add_selection(parser: argparse.ArgumentParser) -> None:
    """What `ls` and `table` have in common."""
    parser.add_argument(
        "runs", metavar="RUN", nargs="*", help="runs, sweeps or folders of them (default: all in runs/)"
    )
    parser.add_argument("--where", metavar="FILTER", help="show those alone, such as 'val/acc1>98 and model=xx_small'")
    parser.add_argument("--format", choices=FORMATS, default="terminal", help="(default: %(default)s)")


def act(arguments: argparse.Namespace) -> int:
    from mvit.cli.reported import reported
    from mvit.parent.report import output
    from mvit.parent.report.listing import listing
    from mvit.parent.report.select import select

    def show() -> int:
        records = select(arguments.runs, where=arguments.where)
        grid = listing(records, with_trials=arguments.trials or bool(arguments.where))
        output.show(grid, arguments.format, title="Runs", none="no runs")
        return 0

    return reported(show)
