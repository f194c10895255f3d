"""python -m mvit weights: import weights of another library."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence
from pathlib import Path

from mvit.cli.arguments import Commands


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
    from mvit.parent.host import CHECKOUT

    out = arguments.out
    try:
        imported = convert(arguments.source)
        save(imported, out, overwrite=arguments.overwrite)
    except WeightsError as error:
        console.complain([str(error)])
        return 2
    overrides = (
        "task=evaluate",
        f"task.checkpoint={out}",
        f"model={imported.model}",
        f"data.mean={_list(imported.mean)}",
        f"data.std={_list(imported.std)}",
        f"data.channel_order={imported.channel_order}",
        f"data.eval_crop_fraction={imported.eval_crop_fraction:.4g}",
        f"model.layer_norm_eps={imported.layer_norm_eps:g}",
        f"model.token_projection={imported.token_projection}",
    )
    tensors = f"{imported.num_classes} classes, {len(imported.tensors)} tensors"
    console.say(f"{out}: {imported.model} of {imported.library}, {tensors}")
    console.say("evaluate it as it was trained:")
    console.say(f"  {shlex.join(['python', console.shown(CHECKOUT / 'launch.py'), *overrides])}")
    return 0


def _list(values: Sequence[float]) -> str:
    return "[" + ",".join(f"{float(value):g}" if value % 1 else f"{value:.1f}" for value in values) + "]"
