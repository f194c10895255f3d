"""python -m mvit completion: completion with Tab for a shell."""

from __future__ import annotations

import argparse

from mvit.cli.arguments import Commands
from mvit.program import LAUNCH, MVIT

CHOICES = ("bash", "zsh", "fish")


def add_to(commands: Commands) -> None:
    parser = commands.add_parser(
        "completion",
        help="complete groups, options, keys and runs with Tab",
        description=(
            f"Print what makes a shell complete {LAUNCH} and {MVIT} with Tab, or install it. For one session: "
            f'eval "$({MVIT} completion bash)".'
        ),
    )
    parser.add_argument("shell", nargs="?", choices=CHOICES, help="(default: your login shell)")
    parser.add_argument("--install", action="store_true", help="have each new shell read it")
    parser.set_defaults(act=act)


def act(arguments: argparse.Namespace) -> int:
    from mvit import console
    from mvit.cli.complete.shell import install, script, this_shell
    from mvit.cli.complete.vocabulary import vocabulary

    shell = arguments.shell or this_shell()
    if shell is None:
        command = console.mvit_command("completion", "bash")
        console.complain([f"SHELL does not name one of {', '.join(CHOICES)}; use: {command}"])
        return 2
    if not arguments.install:
        print(script(shell), end="")
        return 0
    try:
        changed = install(shell)
    except OSError as error:
        console.complain([f"cannot write {error.filename}: {error.strerror}"])
        return 1
    vocabulary("train")  # so that the first Tab need not wait for it
    for path in changed:
        console.say(f"mvit: {path} written")
    console.say(f"mvit: {shell} completes {LAUNCH} and {MVIT} from its next start on: exec {shell}")
    return 0
