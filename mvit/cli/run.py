"""python -m mvit run: execute a frozen run."""

from __future__ import annotations

import argparse
from dataclasses import replace

from mvit.cli.arguments import Commands


def add_to(commands: Commands) -> None:
    about = "execute a frozen run (one of a launch with freeze=true)"
    parser = commands.add_parser("run", help=about, description=f"{about.capitalize()}.")
    parser.add_argument("run", metavar="RUN", help="its folder, short id or MLflow run id")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="limits.*, train.max_restarts, verbose")
    parser.add_argument("--slot", metavar="SLOT", help="what it may use: cores=0-3, cards=0,1, port=21000; joined by :")
    parser.add_argument(
        "--node-rank", type=int, metavar="K", help="of a run on several machines: take part as this one"
    )
    parser.add_argument("--of-sweep", action="store_true", help="leave MLflow to the sweep that starts the run")
    parser.add_argument("--until-epoch", type=int, metavar="N", help="pause after the evaluation of this epoch")
    parser.set_defaults(act=act)


def act(arguments: argparse.Namespace) -> int:
    from mvit.cli.reported import reported
    from mvit.parent.locate import RUNS, locate
    from mvit.parent.resume import run_frozen, take_part
    from mvit.parent.slot import parse_slot, slot_from_environment

    def run() -> int:
        slot = slot_from_environment()
        if arguments.slot is not None:
            slot = parse_slot(arguments.slot, slot)
        path = locate(arguments.run, runs=RUNS)
        if arguments.node_rank:
            return take_part(path, slot=replace(slot, node_rank=arguments.node_rank))
        return run_frozen(
            path,
            arguments.overrides,
            slot=slot,
            mirrored=not arguments.of_sweep,
            until_epoch=arguments.until_epoch,
        )

    return reported(run)
