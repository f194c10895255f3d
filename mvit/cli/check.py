"""python -m mvit check: whether results may be believed."""

from __future__ import annotations

import argparse

from mvit.cli.arguments import Commands, positive


def add_to(commands: Commands) -> None:
    parser = commands.add_parser(
        "check",
        help="say whether results may be believed, or why not",
        description=(
            "Hold runs against the rules of experiments/rules.json, and say which are broken and why. Exit code 1 if "
            "one is. With --seeds and --target, the runs are one claim over their seeds."
        ),
    )
    parser.add_argument("runs", metavar="RUN", nargs="+", help="runs, sweeps or folders of them")
    parser.add_argument("--seeds", type=positive, metavar="N", help="the runs are claimed to be of N seeds")
    parser.add_argument(
        "--target", type=float, metavar="PERCENT", help="the accuracy that their mean is claimed to meet"
    )
    parser.set_defaults(act=act)


def act(arguments: argparse.Namespace) -> int:
    from mvit import console
    from mvit.cli.reported import reported
    from mvit.parent.report.admissible import claims, findings, lines
    from mvit.parent.report.select import select

    def show() -> int:
        records = select(arguments.runs, where=None)
        if not records:
            console.complain(["no runs"])
            return 2
        checked = [(f"{record.id}  {console.shown(record.folder.path)}", findings(record)) for record in records]
        if claim := claims(records, seeds=arguments.seeds, target=arguments.target):
            checked.append((f"{len(records)} runs together", claim))
        for name, found in checked:
            broken = sum(bool(finding.reason) for finding in found)
            console.say(f"{name}: {_summary(broken)}")
            for line in lines(found):
                console.say(line)
        if not any(finding.reason for _, found in checked for finding in found):
            console.hint(f"publish with: {console.mvit_command('publish', *arguments.runs)}")
        return int(any(finding.reason for _, found in checked for finding in found))

    return reported(show)


def _summary(broken: int) -> str:
    match broken:
        case 0:
            return "admissible"
        case 1:
            return "1 rule is broken"
        case _:
            return f"{broken} rules are broken"
