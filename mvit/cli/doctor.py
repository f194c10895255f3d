"""python -m mvit doctor: what works on this machine, and what it lacks."""

from __future__ import annotations

import argparse

from mvit.cli.arguments import Commands


def add_to(commands: Commands) -> None:
    parser = commands.add_parser(
        "doctor",
        help="say what works on this machine, and what it lacks",
        description="Look at Python, packages, processors, memory, disks, compiler, ports, tracking store, cards and"
        " Slurm, and say what to do about what is missing. Exit code 1 if the default job could not run.",
    )
    parser.set_defaults(act=act)


def act(_: argparse.Namespace) -> int:
    from mvit import console
    from mvit.parent.doctor import examine
    from mvit.parent.host import this_host
    from mvit.parent.locate import RUNS
    from mvit.parent.report import output
    from mvit.parent.report.grid import Grid
    from mvit.places import CHECKOUT
    from mvit.program import LAUNCH

    findings = examine(this_host(), runs=RUNS)
    rows = [{"is": one.verdict, "what": one.what, "found": one.found, "remedy": one.remedy} for one in findings]
    output.show(Grid(("is", "what", "found", "remedy"), rows).without_empty_columns(), "terminal", title="", none="")
    missing = [one.what for one in findings if one.remedy and one.is_fatal]
    if missing:
        console.complain([f"the default job cannot run here: see {', '.join(missing)}"])
        return 1
    console.say(f"mvit: the default job can run here: {'make train' if CHECKOUT else LAUNCH}")
    return 0
