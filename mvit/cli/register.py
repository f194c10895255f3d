"""python -m mvit register: a run's best weights in MLflow's registry of models."""

from __future__ import annotations

import argparse
import re
import sys

from mvit.cli.arguments import Commands

NAME = re.compile(r"[^/:'\"]+")


def add_to(commands: Commands) -> None:
    parser = commands.add_parser(
        "register",
        help="put a run's model into MLflow's registry",
        description=(
            "Make the best weights of a run a version of a registered model, which `mlflow models serve` and "
            "`mlflow models predict` load."
        ),
    )
    parser.add_argument("run", metavar="RUN", help="its folder, short id or MLflow run id")
    parser.add_argument("--as", dest="name", metavar="NAME", type=_name, help="of the model (default: the recipe's)")
    parser.set_defaults(act=act)


def _name(text: str) -> str:
    if not NAME.fullmatch(text):
        raise argparse.ArgumentTypeError(f"{text!r}: a model's name has no slash, colon or quote")
    return text


def act(arguments: argparse.Namespace) -> int:
    from mvit import console
    from mvit.cli.reported import reported
    from mvit.parent.locate import RUNS, locate
    from mvit.parent.tracking.model import register
    from mvit.parent.tracking.store import TrackingError
    from mvit.rundir.frozen import read_run
    from mvit.rundir.paths import RunDir

    def make() -> int:
        run = read_run(RunDir(locate(arguments.run, runs=RUNS)))
        try:
            made = register(run, name=arguments.name or run.config.name)
        except TrackingError as error:
            console.complain([f"MLflow: {error}"])
            return 1
        console.say(f"mvit: version {made.version} of {made.name}")
        served = f"{sys.executable} -m mlflow models serve -m {made.uri} --env-manager local"
        console.say(f"mvit: serve it with: MLFLOW_TRACKING_URI={made.store} {served}")
        return 0

    return reported(make)
