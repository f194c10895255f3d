"""python -m mvit run: execute a frozen run."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("run", help="execute a frozen run, or go on with it (launch.py ... freeze=true)")
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="the run folder")
    parser.add_argument("--slot", metavar="SLOT", help="what it may use: cores=0-3, cards=0,1, port=21000; joined by :")
    parser.set_defaults(act=act)


def act(arguments: argparse.Namespace) -> int:
    from mvit.cli.reported import reported
    from mvit.parent.resume import run_frozen
    from mvit.parent.slot import parse_slot, slot_from_environment

    def run() -> int:
        slot = slot_from_environment()
        if arguments.slot:
            slot = parse_slot(arguments.slot, slot)
        return run_frozen(arguments.folder.resolve(), [], slot=slot)

    return reported(run)
