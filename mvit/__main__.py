"""python -m mvit."""

import sys

from mvit.cli import main

sys.exit(main())
