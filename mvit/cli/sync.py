"""python -m mvit sync: send run folders to a tracking store."""

from __future__ import annotations

import argparse

from mvit.cli.arguments import Commands


def add_to(commands: Commands) -> None:
    parser = commands.add_parser(
        "sync",
        help="send run folders to a tracking store",
        description="Send run folders to a tracking store. What is already there is not sent again.",
    )
    parser.add_argument("run", metavar="RUN", help="a folder, a short id or an MLflow run id; or a folder of runs")
    parser.add_argument(
        "--uri", help="the store (default: that of each run); put a password into MLFLOW_TRACKING_PASSWORD"
    )
    parser.add_argument("--experiment", metavar="NAME", help="the MLflow experiment (default: that of each run)")
    parser.set_defaults(act=act)


def act(arguments: argparse.Namespace) -> int:
    from mvit.cli.reported import reported
    from mvit.parent.locate import RUNS, locate
    from mvit.parent.tracking.replay import sync

    return reported(lambda: sync(locate(arguments.run, runs=RUNS), uri=arguments.uri, experiment=arguments.experiment))
