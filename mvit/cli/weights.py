"""python -m mvit weights: import weights of another library."""

from __future__ import annotations

import argparse
from pathlib import Path

from mvit.cli.arguments import Commands

DATA = ("data=imagefolder", "data.root=FOLDER")
"""What the file cannot know; a person puts their own folder in."""


def add_to(commands: Commands) -> None:
    about = "import weights of timm, transformers or MindCV"
    parser = commands.add_parser("weights", help=about, description=f"{about[0].upper()}{about[1:]}.")
    parser.add_argument(
        "source",
        type=Path,
        metavar="SRC",
        help="a .safetensors file of timm or transformers, a .ckpt file of MindCV",
    )
    parser.add_argument("out", type=Path, metavar="OUT", help="the .safetensors file to write")
    parser.add_argument("--overwrite", action="store_true", help="replace OUT if it exists")
    parser.set_defaults(act=act)


def act(arguments: argparse.Namespace) -> int:
    from mvit import console
    from mvit.models.weights import WeightsError, convert, save

    out = arguments.out
    try:
        imported = convert(arguments.source)
        save(imported, out, overwrite=arguments.overwrite)
    except WeightsError as error:
        console.complain([str(error)])
        return 2
    tensors = f"{imported.num_classes} classes, {len(imported.tensors)} tensors"
    console.say(f"{out}: {imported.model} of {imported.library}, {tensors}")
    console.say("evaluate it on your data; model, normalisation and crop are taken from the file:")
    command = console.launch_command("task=evaluate", f"task.checkpoint={console.shown(out)}", *DATA)
    console.say(f"  {command}")
    return 0
