"""python -m mvit reproduce: a run made again, and compared."""

from __future__ import annotations

import argparse
import sys

from mvit.cli.arguments import Commands


def add_to(commands: Commands) -> None:
    parser = commands.add_parser(
        "reproduce",
        help="run a finished run again, and compare the results",
        description=(
            "Say whether commit, changes, versions, data and plan are as they were; run the run again, as a new one; "
            "compare number by number. Exit code 0 if all of them, and the last checkpoint or the predictions, are "
            "equal to the bit."
        ),
    )
    parser.add_argument("run", metavar="RUN", help="its folder, short id or MLflow run id")
    parser.set_defaults(act=act)


def act(arguments: argparse.Namespace) -> int:
    from mvit.cli.reported import reported
    from mvit.parent.locate import RUNS, locate
    from mvit.parent.reproduce import reproduce
    from mvit.parent.slot import slot_from_environment

    return reported(lambda: reproduce(locate(arguments.run, runs=RUNS), slot=slot_from_environment(), argv=sys.argv))
