"""python -m mvit: what works on existing runs, stores, weights and images."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from mvit.cli import (
    cache,
    check,
    diff,
    docs,
    doctor,
    ls,
    pack,
    publish,
    register,
    reproduce,
    resume,
    run,
    stop,
    sync,
    synthetic,
    table,
    ui,
    weights,
)

COMMANDS = (
    run,
    resume,
    stop,
    ls,
    table,
    diff,
    check,
    reproduce,
    publish,
    register,
    sync,
    ui,
    doctor,
    cache,
    weights,
    pack,
    synthetic,
    docs,
)
EPILOG = """\
To start: `python launch.py` trains on handwritten digits in half a minute,
`python -m mvit ui` shows the runs. `python launch.py --help` lists what a run
can be, `python -m mvit COMMAND --help` the options of a command.

RUN is the folder of a run or of a sweep, its short id, such as b280, or its
MLflow run id.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit codes as launch.py: 0 done, 1 failed, 2 the request was wrong, 130 and 143 stopped by a signal."""
    parser = argparse.ArgumentParser(
        prog="python -m mvit",
        description="Work with runs, and with what they need: stores, weights, images.",
        epilog=EPILOG,
        formatter_class=_Formatter,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND", title="commands")
    for command in COMMANDS:
        command.add_to(commands)
    parsed, rest = parser.parse_known_args(arguments)
    if "overrides" in parsed and not any(argument.startswith("-") for argument in rest):
        parsed.overrides += rest  # argparse loses the overrides that follow an option
    elif rest:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    return parsed.act(parsed)


class _Formatter(argparse.RawDescriptionHelpFormatter):
    """Sets the help of every command beside its name: argparse forgets that it indents the names."""

    def add_argument(self, action: argparse.Action) -> None:
        super().add_argument(action)
        self._action_max_length += 2
