"""One run, or with -m many: compose, check, plan, run, mirror. `python launch.py --help`."""

import sys
from importlib.util import find_spec

# An interpreter outside the environment gets one line instead of a traceback, so this much runs with any Python 3.6.
if not (3, 10) <= sys.version_info[:2] <= (3, 12) or find_spec("hydra") is None:
    TROUBLE = (
        f"hydra-core is not installed in {sys.executable}"
        if (3, 10) <= sys.version_info[:2] <= (3, 12)
        else f"{sys.executable} is Python {sys.version_info[0]}.{sys.version_info[1]}, mvit needs 3.10, 3.11 or 3.12"
    )
    sys.stderr.write(f"mvit: {TROUBLE}; run: make env, then .venv/bin/python launch.py ...\n")
    sys.exit(2)

from mvit.cli import overview

if __name__ == "__main__" and overview.is_asked(sys.argv[1:]):  # before what takes a second to load
    sys.stdout.write(overview.overview())
    sys.exit(0)

from mvit.cli.hydra_entry import start


def main() -> int:
    """The same as `mvit launch`."""
    return start(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
