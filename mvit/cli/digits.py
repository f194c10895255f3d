"""python -m mvit digits: the handwritten digits as image files."""

from __future__ import annotations

import argparse
from pathlib import Path

from mvit.cli.arguments import Commands, positive


def add_to(commands: Commands) -> None:
    parser = commands.add_parser(
        "digits",
        help="write the handwritten digits as image files",
        description="Write scikit-learn's 1797 handwritten digits as a folder of images, with train/ and val/ in it, to"
        " try what takes image files.",
    )
    parser.add_argument("out", type=Path, metavar="OUT", help="the folder to write")
    parser.add_argument("--size", type=positive, default=64, metavar="N", help="pixels (default: %(default)s)")
    parser.set_defaults(act=act)


def act(arguments: argparse.Namespace) -> int:
    from mvit import console
    from mvit.data.digit_files import write_digits
    from mvit.errors import DatasetError

    out = arguments.out
    try:
        train, val = write_digits(out, size=arguments.size)
    except DatasetError as error:
        console.complain([str(error)])
        return 2
    except OSError as error:
        console.complain([f"{out}: {error.strerror or error}"])
        return 1
    console.say(f"{out}: {train} + {val} images of 10 classes")
    images = f"data.images={out}/val"
    console.say(f"predict them with: {console.launch_command('task=predict', 'task.checkpoint=RUN', images)}")
    return 0
