"""python -m mvit, and the command `mvit` of an installed package."""

import os
import signal
import sys


def main() -> int:
    """The exit code of the command that was typed."""
    try:
        try:
            from mvit.places import CHECKOUT
        except FileNotFoundError:
            print("mvit: the current directory does not exist any more; change to one that does", file=sys.stderr)
            return 2
        if not CHECKOUT:
            # What mvit starts must not import from the working directory, which may have a random.py, or another mvit.
            os.environ.setdefault("PYTHONSAFEPATH", "1")  # since Python 3.11
        from mvit.cli import main as commands

        code = commands.main()
        if sys.stdout:
            sys.stdout.flush()
        return code
    except BrokenPipeError:  # the reader of a pipe is gone, as head is after ten lines
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # or else the interpreter's last flush fails, and tells
        return 128 + signal.SIGPIPE
    except KeyboardInterrupt:
        print("mvit: stopped", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
