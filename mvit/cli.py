"""python -m mvit ...: what works on runs, stores and weights that exist."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit codes as launch.py: 0 done, 1 failed, 2 the request was wrong."""
    parser = argparse.ArgumentParser(prog="python -m mvit", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    weights = commands.add_parser("weights", help="import weights of timm, transformers or MindCV")
    weights.add_argument(
        "source", type=Path, metavar="SRC", help=".safetensors of timm or transformers, .ckpt of MindCV"
    )
    weights.add_argument("out", type=Path, metavar="OUT", help="the .safetensors to write")
    weights.add_argument("--overwrite", action="store_true", help="replace OUT if it exists")

    ui = commands.add_parser("ui", help="MLflow's server on this project's store")
    ui.add_argument("--host", default="127.0.0.1", help="address to listen on (default: this machine alone)")
    ui.add_argument("--port", type=int, default=5000)

    commands.add_parser("docs", help="print docs/configuration.md, made from the fields of the configuration")

    asked = parser.parse_args(arguments)
    match asked.command:
        case "weights":
            return _weights(asked.source, asked.out, overwrite=asked.overwrite)
        case "ui":
            from mvit.config import MlflowTracking
            from mvit.launch.plan import CHECKOUT
            from mvit.launch.server import serve
            from mvit.launch.tracking import store_uri

            tracking = MlflowTracking(kind="mlflow", uri=None, experiment="mvit")
            return serve(store_uri(tracking, CHECKOUT), host=asked.host, port=asked.port)
        case _:
            from mvit.reference import configuration

            print(configuration(), end="")
            return 0


def _weights(source: Path, out: Path, *, overwrite: bool) -> int:
    from mvit.models.weights import WeightsError, convert, save

    try:
        imported = convert(source)
        save(imported, out, overwrite=overwrite)
    except WeightsError as error:
        print(f"mvit: {error}", file=sys.stderr)
        return 2
    order, eps = imported.channel_order, imported.layer_norm_eps
    tensors = f"{imported.num_classes} classes, {len(imported.tensors)} tensors"
    print(f"{out}: {imported.model} of {imported.library}, {tensors}")
    print("evaluate it with the conventions it was trained with:")
    print(
        f"  python launch.py task=evaluate task.checkpoint={out} model={imported.model}"
        f" data.mean={_list(imported.mean)} data.std={_list(imported.std)} data.channel_order={order}"
        f" data.eval_crop_fraction={imported.eval_crop_fraction:.4g} model.layer_norm_eps={eps:g}"
        f" model.token_projection={imported.token_projection}"
    )
    return 0


def _list(values: Sequence[float]) -> str:
    return "[" + ",".join(f"{float(value):g}" if value % 1 else f"{value:.1f}" for value in values) + "]"
