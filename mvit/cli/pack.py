"""python -m mvit pack: an image folder as MindRecord shards."""

from __future__ import annotations

import argparse
from pathlib import Path

from mvit.cli.arguments import Commands, positive


def add_to(commands: Commands) -> None:
    parser = commands.add_parser(
        "pack",
        help="pack an image folder into MindRecord shards",
        description="Pack an image folder into MindRecord shards. If it is interrupted, run it again to continue.",
    )
    parser.add_argument("source", metavar="SRC", help="the folder that contains train and val")
    parser.add_argument("out", type=Path, metavar="OUT", help="the folder for the shards and manifest.json")
    parser.add_argument("--shards", type=positive, metavar="N", help="training shards (default: one per GiB)")
    parser.add_argument("--train-folder", default="train", metavar="NAME", help="training split (default: %(default)s)")
    parser.add_argument("--val-folder", default="val", metavar="NAME", help="validation split (default: %(default)s)")
    parser.add_argument(
        "--class-names", metavar="FILE", help="lines of folder and name (default: SRC/LOC_synset_mapping.txt)"
    )
    parser.add_argument(
        "--on-unreadable",
        choices=("refuse", "skip"),
        default="refuse",
        help="what to do about images that cannot be decoded (default: %(default)s)",
    )
    parser.add_argument("--workers", type=positive, metavar="N", help="decoding threads (default: one per processor)")
    parser.add_argument("--overwrite", action="store_true", help="replace what OUT already contains")
    parser.set_defaults(act=act)


def act(arguments: argparse.Namespace) -> int:
    from mvit.data import pack

    return pack.main(
        pack.Origin(arguments.source, arguments.train_folder, arguments.val_folder, arguments.class_names),
        arguments.out,
        shards=arguments.shards,
        on_unreadable=arguments.on_unreadable,
        workers=arguments.workers or pack.processors(),
        overwrite=arguments.overwrite,
    )
