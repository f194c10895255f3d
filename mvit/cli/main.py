"""python -m mvit ...: what works on runs, stores, weights and images that exist."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from mvit.cli import resume, run

LARGEST_SIDE = 8192
"""Pixels of a generated image; two at a time fit into ordinary memory."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit codes as launch.py: 0 done, 1 failed, 2 the request was wrong, 130 stopped by Ctrl-C."""
    parser = argparse.ArgumentParser(prog="python -m mvit", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    weights = commands.add_parser("weights", help="import weights of timm, transformers or MindCV")
    weights.add_argument(
        "source", type=Path, metavar="SRC", help=".safetensors of timm or transformers, .ckpt of MindCV"
    )
    weights.add_argument("out", type=Path, metavar="OUT", help="the .safetensors to write")
    weights.add_argument("--overwrite", action="store_true", help="replace OUT if it exists")

    pack = commands.add_parser("pack", help="turn an image folder into MindRecord shards; restartable")
    pack.add_argument("source", metavar="SRC", help="the folder that holds train and val")
    pack.add_argument("out", type=Path, metavar="OUT", help="the folder for the shards and manifest.json")
    pack.add_argument("--shards", type=_count, metavar="N", help="training shards (default: one for each GiB)")
    pack.add_argument("--train-folder", default="train", metavar="NAME", help="name of the training split's folder")
    pack.add_argument("--val-folder", default="val", metavar="NAME", help="name of the validation split's folder")
    pack.add_argument("--class-names", metavar="FILE", help="lines `folder name` (default: SRC/LOC_synset_mapping.txt)")
    pack.add_argument(
        "--on-unreadable",
        choices=("refuse", "skip"),
        default="refuse",
        help="what an image that cannot be decoded does",
    )
    pack.add_argument("--workers", type=_count, metavar="N", help="threads that decode (default: one per processor)")
    pack.add_argument("--overwrite", action="store_true", help="replace what was packed into OUT before")

    synthetic = commands.add_parser("synthetic", help="write a generated image folder")
    synthetic.add_argument("out", type=Path, metavar="OUT", help="the folder to write")
    synthetic.add_argument("--classes", type=_count, default=4, metavar="N")
    synthetic.add_argument("--train", type=_count, default=64, metavar="N", help="training images, of all classes")
    synthetic.add_argument("--val", type=_count, default=16, metavar="N", help="validation images, of all classes")
    synthetic.add_argument("--size", type=_size, default=(500, 375), metavar="WIDTHxHEIGHT")
    synthetic.add_argument("--seed", type=_natural, default=1)
    synthetic.add_argument("--format", choices=("jpeg", "png"), default="jpeg")
    synthetic.add_argument("--overwrite", action="store_true", help="replace OUT if it was generated")

    run.add_to(commands)
    resume.add_to(commands)

    ui = commands.add_parser("ui", help="MLflow's server on this project's store")
    ui.add_argument("--host", default="127.0.0.1", help="address to listen on (default: this machine alone)")
    ui.add_argument("--port", type=_port, default=5000)

    replay = commands.add_parser("sync", help="send run folders to a tracking store; what is there is not sent again")
    replay.add_argument("path", type=Path, metavar="PATH", help="a run folder, or a folder above several")
    replay.add_argument("--uri", help="the store (default: the one of each run); passwords: MLFLOW_TRACKING_PASSWORD")
    replay.add_argument("--experiment", metavar="NAME", help="the experiment there (default: the one of each run)")

    commands.add_parser("docs", help="print docs/configuration.md, made from the fields of the configuration")

    asked, rest = parser.parse_known_args(arguments)
    if asked.command == "resume" and not any(argument.startswith("-") for argument in rest):
        asked.overrides += rest  # argparse loses what stands behind --fork
    elif rest:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    match asked.command:
        case "weights":
            return _weights(asked.source, asked.out, overwrite=asked.overwrite)
        case "pack":
            from mvit.data import pack

            return pack.main(
                pack.Origin(asked.source, asked.train_folder, asked.val_folder, asked.class_names),
                asked.out,
                shards=asked.shards,
                on_unreadable=asked.on_unreadable,
                workers=asked.workers or pack.processors(),
                overwrite=asked.overwrite,
            )
        case "synthetic":
            return _synthetic(asked)
        case "run" | "resume":
            return asked.act(asked)
        case "sync":
            from mvit.parent.tracking.replay import sync

            try:
                return sync(asked.path, uri=asked.uri, experiment=asked.experiment)
            except KeyboardInterrupt:
                return 130
        case "ui":
            from mvit.config import MlflowTracking
            from mvit.parent.host import CHECKOUT
            from mvit.parent.tracking.server import serve
            from mvit.parent.tracking.store import store_uri

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


def _synthetic(asked: argparse.Namespace) -> int:
    from mvit.data.generated import write_image_folder
    from mvit.errors import DatasetError

    asked_for = {name: getattr(asked, name) for name in ("classes", "train", "val", "size", "seed", "format")}
    try:
        write_image_folder(asked.out, **asked_for, overwrite=asked.overwrite)
    except DatasetError as error:
        print(f"mvit: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"mvit: {asked.out}: {error.strerror or error}", file=sys.stderr)
        return 1
    print(f"{asked.out}: {asked.train} + {asked.val} images of {asked.classes} classes")
    return 0


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 1")
    return int(text)


def _natural(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 0")
    return int(text)


def _port(text: str) -> int:
    number = _count(text)
    if number > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is no port from 1 to 65535")
    return number


def _size(text: str) -> tuple[int, int]:
    width, _, height = text.partition("x")
    try:
        size = _count(width), _count(height)
    except argparse.ArgumentTypeError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no size as 500x375") from error
    if max(size) > LARGEST_SIDE:
        raise argparse.ArgumentTypeError(f"{text!r} has more than {LARGEST_SIDE} pixels to a side")
    return size


def _list(values: Sequence[float]) -> str:
    return "[" + ",".join(f"{float(value):g}" if value % 1 else f"{value:.1f}" for value in values) + "]"
