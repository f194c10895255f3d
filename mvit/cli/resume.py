"""python -m mvit resume: continue a run or a sweep, or fork a run."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("resume", help="continue a run, or what of a sweep is not finished, from its folder")
    parser.add_argument("path", type=Path, metavar="PATH", help="the folder of a run or of a sweep")
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="limits.* and train.max_restarts; with --fork, any value"
    )
    parser.add_argument("--fork", action="store_true", help="a new run beside it, from its newest checkpoint")
    parser.set_defaults(act=act)


def act(arguments: argparse.Namespace) -> int:
    from mvit.cli.reported import reported
    from mvit.parent.resume import fork, resume
    from mvit.parent.slot import slot_from_environment

    def run() -> int:
        path, slot = arguments.path.resolve(), slot_from_environment()
        if arguments.fork:
            return fork(path, arguments.overrides, slot=slot, argv=sys.argv)
        return resume(path, arguments.overrides, slot=slot)

    return reported(run)
