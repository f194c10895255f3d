"""python -m mvit stop: stop a run or a sweep from another terminal."""

from __future__ import annotations

import argparse

from mvit.cli.arguments import Commands


def add_to(commands: Commands) -> None:
    parser = commands.add_parser(
        "stop",
        help="stop a run or a sweep, after a checkpoint",
        description="Stop a run, or all trials of a sweep, as Ctrl-C would in its own terminal: after a checkpoint.",
    )
    parser.add_argument("run", metavar="RUN", help="its folder, short id or MLflow run id")
    parser.add_argument("--after", choices=["step", "epoch"], default="step", help="the current one (default: step)")
    parser.set_defaults(act=act)


def act(arguments: argparse.Namespace) -> int:
    from mvit.cli.reported import reported
    from mvit.parent.locate import RUNS, locate
    from mvit.parent.stop import stop

    return reported(lambda: stop(locate(arguments.run, runs=RUNS), after_epoch=arguments.after == "epoch"))
