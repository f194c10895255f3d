"""python -m mvit ls: the runs that there are."""

from __future__ import annotations

import argparse
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from mvit.cli.arguments import Commands
from mvit.parent.report.formats import FORMATS

if TYPE_CHECKING:
    from mvit.parent.report.record import Record


def add_to(commands: Commands) -> None:
    parser = commands.add_parser(
        "ls",
        help="list the runs, the newest one last",
        description="List runs, and sweeps with what their trials came to; the newest one is last.",
    )
    add_selection(parser)
    parser.add_argument("-t", "--trials", action="store_true", help="list the trials of each sweep, too")
    parser.set_defaults(act=act)


def add_selection(parser: argparse.ArgumentParser) -> None:
    """What `ls` and `table` have in common."""
    parser.add_argument(
        "runs", metavar="RUN", nargs="*", help="runs, sweeps or folders of them (default: all in runs/)"
    )
    parser.add_argument("--where", metavar="FILTER", help="show those alone, such as 'val/acc1>98 and model=xx_small'")
    parser.add_argument(
        "--store",
        metavar="URI",
        nargs="?",
        const="",
        type=_uri,
        help="show the runs of a tracking store (default: MLFLOW_TRACKING_URI, or mlflow.db), not those in folders",
    )
    parser.add_argument("--experiment", default="mvit", help="of the store (default: %(default)s)")
    parser.add_argument("--format", choices=FORMATS, default="terminal", help="(default: %(default)s)")


def _uri(text: str) -> str:
    if text and ":" not in text:
        raise argparse.ArgumentTypeError(f"{text!r} is not the URI of a store; name runs before --store")
    return text


@contextmanager
def selected(arguments: argparse.Namespace) -> Generator[list[Record]]:
    """The records that the arguments ask for, and their files until the end."""
    from tempfile import TemporaryDirectory

    from mvit.config import MlflowTracking
    from mvit.parent.report.select import select, select_stored
    from mvit.parent.tracking.store import store_uri
    from mvit.places import PROJECT

    if arguments.store is None:
        yield select(arguments.runs, where=arguments.where)
        return
    tracking = MlflowTracking(kind="mlflow", uri=arguments.store or None, experiment=arguments.experiment)
    uri = store_uri(tracking, Path.cwd() if arguments.store else PROJECT)
    with TemporaryDirectory(prefix="mvit-", ignore_cleanup_errors=True) as room:
        yield select_stored(
            arguments.runs, where=arguments.where, uri=uri, experiment=arguments.experiment, room=Path(room)
        )


def none_of(what: str, arguments: argparse.Namespace) -> str:
    """What is said where there is nothing to show; where nothing was selected, also how to start one."""
    if arguments.runs or arguments.where or arguments.store is not None:
        return what
    from mvit import console

    return f"{what}; start one with: {console.launch_command()}"


def act(arguments: argparse.Namespace) -> int:
    from mvit import console
    from mvit.cli.reported import reported
    from mvit.parent.report import output
    from mvit.parent.report.listing import listing, next_step

    def show() -> int:
        with selected(arguments) as records:
            grid = listing(records, with_trials=arguments.trials or bool(arguments.where))
            output.show(grid, arguments.format, title="Runs", none=none_of("no runs", arguments))
            if arguments.format == "terminal" and arguments.store is None and (hint := next_step(records)):
                console.hint(hint)
        return 0

    return reported(show)
