"""python -m mvit ui: MLflow's server on this project's store."""

from __future__ import annotations

import argparse

from mvit.cli.arguments import Commands, port


def add_to(commands: Commands) -> None:
    parser = commands.add_parser(
        "ui",
        help="show the runs in MLflow",
        description="Serve MLflow on this project's tracking store: MLFLOW_TRACKING_URI, else mlflow.db.",
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=port, default=5000, help="port to listen on (default: %(default)s)")
    parser.set_defaults(act=act)


def act(arguments: argparse.Namespace) -> int:
    from mvit.config import MlflowTracking
    from mvit.parent.host import CHECKOUT
    from mvit.parent.tracking.server import serve
    from mvit.parent.tracking.store import store_uri

    tracking = MlflowTracking(kind="mlflow", uri=None, experiment="mvit")
    return serve(store_uri(tracking, CHECKOUT), host=arguments.host, port=arguments.port)
