"""python -m mvit ui: MLflow's server on this project's store."""

from __future__ import annotations

import argparse

from mvit.cli.arguments import Commands, port


def add_to(commands: Commands) -> None:
    parser = commands.add_parser(
        "ui",
        help="show the runs in MLflow",
        description=(
            "Serve MLflow on this project's tracking store, MLFLOW_TRACKING_URI or else mlflow.db; print where "
            "its results are, and open them where there is a display. A store that is a server is not served again."
        ),
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=port, help="port to listen on (default: the first free one from 5000 on)")
    parser.add_argument("--experiment", default="mvit", help="whose results to show (default: %(default)s)")
    parser.set_defaults(act=act)


def act(arguments: argparse.Namespace) -> int:
    from mvit.config import MlflowTracking
    from mvit.parent.tracking.server import serve
    from mvit.parent.tracking.store import store_uri
    from mvit.places import PROJECT

    tracking = MlflowTracking(kind="mlflow", uri=None, experiment=arguments.experiment)
    uri = store_uri(tracking, PROJECT)
    return serve(uri, host=arguments.host, port=arguments.port, experiment=arguments.experiment)
