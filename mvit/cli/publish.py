"""python -m mvit publish: results of runs for the README and the documentation."""

from __future__ import annotations

import argparse

from mvit.cli.arguments import Commands


def add_to(commands: Commands) -> None:
    parser = commands.add_parser(
        "publish",
        help="put results into the README and docs/results.md",
        description=(
            "Write the results of admissible runs to experiments/results/runs-NAME.json, and make the tables of the "
            "README and of docs/results.md, and the `found:` lines of experiments/, from all files there. A sweep is "
            "published as the trials that it compared, unless they differ in their seed alone. Without RUN, the tables "
            "alone."
        ),
    )
    parser.add_argument("runs", metavar="RUN", nargs="*", help="runs, sweeps or folders of them")
    parser.add_argument("--as", dest="name", metavar="NAME", help="name of the file (default: that of the recipe)")
    parser.set_defaults(act=act)


def act(arguments: argparse.Namespace) -> int:
    from mvit import console
    from mvit.cli.reported import reported
    from mvit.parent.locate import RUNS, locate
    from mvit.parent.report.publication import publish, publish_sweep, write_pages
    from mvit.parent.report.results import jobs_of
    from mvit.parent.report.select import select
    from mvit.parent.sweep.published import published_sweep
    from mvit.rundir.sweep import is_sweep

    def write() -> int:
        if not arguments.runs:
            changed = write_pages()
        else:
            jobs = jobs_of(select(arguments.runs, where=None))
            if not jobs:
                console.complain(["no run with a result"])
                return 2
            name = arguments.name or jobs[0].run.config.name
            only = locate(arguments.runs[0], runs=RUNS) if len(arguments.runs) == 1 else None
            if only and is_sweep(only) and len(jobs) > 1:
                changed = publish_sweep(*published_sweep(only), name=name)
            else:
                changed = publish(jobs, name=name)
        for path in changed:
            console.say(f"mvit: {console.shown(path)} written")
        if changed:
            console.hint("see what changed with: git diff")
        return 0

    return reported(write)
