"""python -m mvit table: the results of runs."""

from __future__ import annotations

import argparse

from mvit.cli.arguments import Commands
from mvit.cli.ls import add_selection, none_of, selected


def add_to(commands: Commands) -> None:
    parser = commands.add_parser(
        "table",
        help="show the results of runs, one row for each job",
        description=(
            "Show the results of finished runs, the most accurate first. Runs that differ in their seed alone are one "
            "row: its numbers are means, n is the number of seeds, std the standard deviation of acc@top1."
        ),
    )
    add_selection(parser)
    parser.add_argument(
        "--published", action="store_true", help="put what others have published beside our runs of the same experiment"
    )
    parser.set_defaults(act=act)


def act(arguments: argparse.Namespace) -> int:
    from mvit import console
    from mvit.cli.reported import reported
    from mvit.parent.report import output
    from mvit.parent.report.comparison import compared
    from mvit.parent.report.results import jobs_of, results

    def show() -> int:
        with selected(arguments) as records:
            jobs = jobs_of(records)
            grid = compared(jobs) if arguments.published else results(jobs)
            pictures = ((f"{job.names}: confusion matrix", job.run.folder.confusion_picture) for job in jobs)
            none = none_of("no run with a result", arguments)
            output.show(grid, arguments.format, title="Results", none=none, pictures=pictures)
            if jobs and arguments.format == "terminal" and arguments.store is None:
                command = console.mvit_command("check", *arguments.runs or [jobs[0].records[0].id])
                console.hint(f"see whether they may be believed with: {command}")
        return 0

    return reported(show)
