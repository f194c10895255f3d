"""The program, as the person calls it: `mvit` where it is installed, `python -m mvit` and `launch.py` in a checkout."""

import sys
from pathlib import Path

from mvit.places import CHECKOUT

IS_COMMAND = CHECKOUT is None or Path(sys.argv[0]).name == "mvit"
MVIT = "mvit" if IS_COMMAND else "python -m mvit"
LAUNCH = "mvit launch" if IS_COMMAND else "python launch.py"
REFERENCE = "docs/configuration.md" if CHECKOUT else f"{MVIT} docs"
"""What explains each key of the configuration."""
