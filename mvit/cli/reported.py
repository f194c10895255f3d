"""Errors of a command as lines on standard error and an exit code."""

from __future__ import annotations

from collections.abc import Callable

from mvit import console
from mvit.credentials import hidden
from mvit.errors import ConfigError, RunDirError
from mvit.files import as_utf8
from mvit.parent import signals


def reported(act: Callable[[], int]) -> int:
    """The exit code of `act`: 2 for a wrong request, one line per problem; 130 and the like where a signal ended it."""
    with signals.raising():
        try:
            return act()
        except ConfigError as error:
            console.complain(str(problem) for problem in error.problems)
        except RunDirError as error:
            console.complain([hidden(str(error))])
        except PermissionError as error:
            if error.filename is None:  # not of a file
                raise
            console.complain([f"{as_utf8(str(error.filename))}: {error.strerror}; check its permissions"])
        except signals.Interrupted as interrupted:  # before or after the run itself, which ends its own processes
            return interrupted.exit_code
    return 2
