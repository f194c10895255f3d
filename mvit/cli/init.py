"""python -m mvit init: an experiment for a person's own images."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from mvit.cli.arguments import Commands, share


def add_to(commands: Commands) -> None:
    parser = commands.add_parser(
        "init",
        help="write an experiment for your own images",
        description=(
            "Look at a folder of images, and write DIR/experiment/NAME.yaml: a recipe for that many images of that "
            "size, with the reason for each value. Nothing is overwritten."
        ),
    )
    parser.add_argument("folder", type=Path, metavar="DIR", help="where to write; it need not exist")
    parser.add_argument(
        "--data",
        type=Path,
        required=True,
        metavar="PATH",
        help="the folder with train and val, a folder per class in each",
    )
    parser.add_argument("--name", metavar="NAME", help="of the experiment and its runs (default: that of PATH)")
    parser.add_argument(
        "--val-share",
        type=share,
        metavar="SHARE",
        help="for class folders without a split: hold out this share of each, as links in DIR/data",
    )
    parser.add_argument(
        "--on-unreadable",
        choices=("refuse", "skip"),
        default="refuse",
        help="what to do about images that cannot be decoded (default: %(default)s)",
    )
    parser.set_defaults(act=act)


def act(arguments: argparse.Namespace) -> int:
    from mvit.cli.reported import reported
    from mvit.config import NAME_PATTERN
    from mvit.errors import ConfigError, Problem
    from mvit.parent.starter import write_starter

    def write() -> int:
        name = arguments.name or re.sub(r"[^A-Za-z0-9_-]+", "-", arguments.data.resolve().name).strip("-_")[:64]
        if not re.fullmatch(NAME_PATTERN, name):
            raise ConfigError(
                Problem("--name", name, "must be of letters, digits, - and _", "use, for example, flowers")
            )
        return write_starter(
            arguments.folder,
            arguments.data,
            name=name,
            val_share=arguments.val_share,
            on_unreadable=arguments.on_unreadable,
        )

    return reported(write)
