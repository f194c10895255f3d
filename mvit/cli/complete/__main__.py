"""What may end a command line: python -I -m mvit.cli.complete SHELL WORD..., called by a shell at each Tab.

Prints a candidate for the last word per line, in the form that the shell takes, and nothing where files are wanted.
"""

from __future__ import annotations

import sys

from mvit.cli.complete import command, launch
from mvit.cli.complete.candidate import Candidate
from mvit.cli.complete.line import read


def candidates(words: list[str]) -> list[Candidate]:
    """What may take the place of the last word."""
    line = read(words)
    if line is None:
        return []
    found = launch.candidates(line) if line.program == "launch" else command.candidates(line)
    return [one for one in found if one.word.startswith(line.current)]


for one in candidates(sys.argv[2:]):
    print(one.for_shell(sys.argv[1]))
