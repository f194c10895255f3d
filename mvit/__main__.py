"""python -m mvit."""

import sys

from mvit.cli import main

try:
    sys.exit(main())
except KeyboardInterrupt:
    print("mvit: stopped", file=sys.stderr)
    sys.exit(130)
