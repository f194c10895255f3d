"""python -m mvit."""

import sys

from mvit.cli.main import main

try:
    sys.exit(main())
except KeyboardInterrupt:
    print("mvit: stopped", file=sys.stderr)
    sys.exit(130)
