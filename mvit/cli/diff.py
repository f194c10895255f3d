"""python -m mvit diff: how two runs differ."""

from __future__ import annotations

import argparse

from mvit.cli.arguments import Commands
from mvit.parent.report.formats import FORMATS


def add_to(commands: Commands) -> None:
    parser = commands.add_parser(
        "diff",
        help="show how two runs differ",
        description=(
            "Show in what two runs differ: configuration, code, versions, data, results, and whether their last "
            "checkpoints, or their predictions, are equal to the bit; then what they logged."
        ),
    )
    parser.add_argument("first", metavar="RUN", help="its folder, short id or MLflow run id")
    parser.add_argument("second", metavar="RUN", help="the other one")
    parser.add_argument("--format", choices=FORMATS, default="terminal", help="(default: %(default)s)")
    parser.set_defaults(act=act)


def act(arguments: argparse.Namespace) -> int:
    from mvit.cli.reported import reported
    from mvit.parent.locate import RUNS, locate
    from mvit.parent.report import output
    from mvit.parent.report.difference import curves, differences, grid_of
    from mvit.parent.report.record import run_of

    def show() -> int:
        first, second = (run_of(locate(name, runs=RUNS)) for name in (arguments.first, arguments.second))
        names = (first.id, second.id) if first.id != second.id else ("first", "second")
        grid, below = grid_of(differences(first, second), names=names), list(curves(first, second, names=names))
        title = f"{first.id} and {second.id}"
        output.show(grid, arguments.format, title=title, none="they do not differ", below=below)
        return 0

    return reported(show)
