"""python -m mvit resume: continue a run or a sweep, or fork a run."""

from __future__ import annotations

import argparse
import sys

from mvit.cli.arguments import Commands


def add_to(commands: Commands) -> None:
    parser = commands.add_parser(
        "resume",
        help="continue a run, or the unfinished trials of a sweep",
        description="Continue a run from its newest checkpoint, or the unfinished trials of a sweep.",
    )
    parser.add_argument("run", metavar="RUN", help="its folder, short id or MLflow run id")
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="limits.*, train.max_restarts, verbose; any key with --fork"
    )
    parser.add_argument("--fork", action="store_true", help="start a new run from the newest checkpoint instead")
    parser.add_argument(
        "--failed", action="store_true", help="of a sweep, run the failed trials alone, whatever failed"
    )
    parser.set_defaults(act=act)


def act(arguments: argparse.Namespace) -> int:
    from mvit.cli.reported import reported
    from mvit.parent.locate import RUNS, locate
    from mvit.parent.resume import fork, resume
    from mvit.parent.slot import slot_from_environment

    def run() -> int:
        path, slot = locate(arguments.run, runs=RUNS), slot_from_environment()
        if arguments.fork:
            return fork(path, arguments.overrides, slot=slot, argv=sys.argv)
        return resume(path, arguments.overrides, slot=slot, failed=arguments.failed)

    return reported(run)
