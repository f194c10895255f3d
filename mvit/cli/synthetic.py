"""python -m mvit synthetic: a folder of generated images."""

from __future__ import annotations

import argparse
from pathlib import Path

from mvit.cli.arguments import Commands, image_size, non_negative, positive


def add_to(commands: Commands) -> None:
    parser = commands.add_parser(
        "synthetic",
        help="write a folder of generated images",
        description="Write a folder of generated images, to try a data pipeline without a dataset.",
    )
    parser.add_argument("out", type=Path, metavar="OUT", help="the folder to write")
    parser.add_argument("--classes", type=positive, default=4, metavar="N", help="default: %(default)s")
    parser.add_argument(
        "--train", type=positive, default=64, metavar="N", help="images to train on (default: %(default)s)"
    )
    parser.add_argument(
        "--val", type=positive, default=16, metavar="N", help="validation images (default: %(default)s)"
    )
    parser.add_argument(
        "--size", type=image_size, default=(500, 375), metavar="WIDTHxHEIGHT", help="pixels (default: 500x375)"
    )
    parser.add_argument("--seed", type=non_negative, default=1, metavar="N", help="default: %(default)s")
    parser.add_argument("--format", choices=("jpeg", "png"), default="jpeg", help="default: %(default)s")
    parser.add_argument("--overwrite", action="store_true", help="replace OUT if it was generated")
    parser.set_defaults(act=act)


def act(arguments: argparse.Namespace) -> int:
    from mvit import console
    from mvit.data.generated import write_image_folder
    from mvit.errors import DatasetError

    out = arguments.out
    options = {name: getattr(arguments, name) for name in ("classes", "train", "val", "size", "seed", "format")}
    try:
        write_image_folder(out, **options, overwrite=arguments.overwrite)
    except DatasetError as error:
        console.complain([str(error)])
        return 2
    except OSError as error:
        console.complain([f"{out}: {error.strerror or error}"])
        return 1
    console.say(f"{out}: {arguments.train} + {arguments.val} images of {arguments.classes} classes")
    overrides = ("data=imagefolder", f"data.root={out}", "data.image_size=128")
    console.say(f"train on it with: {console.launch_command(*overrides)}")
    return 0
