"""Places: where the configuration is, and the folder of the project, which holds the runs and their store.

In a checkout, which an editable install is too, both are the checkout's. An installed package brings the configuration
along, and the project is the directory in which the command is typed.
"""

from __future__ import annotations

from pathlib import Path

PACKAGE = Path(__file__).resolve().parent
CHECKOUT = PACKAGE.parent if (PACKAGE.parent / "launch.py").is_file() else None
"""The repository that this code is in; None for an installed package."""
CONF = (PACKAGE / "conf").resolve()
"""What a run can be; a checkout has a link to it in the package."""
EXPERIMENTS = (CONF / "experiment").resolve()
"""Experiments, published numbers, and the rules for results."""
CONSTRAINTS = (PACKAGE / "constraints.txt").resolve()
"""The versions that mvit is tested with."""
PROJECT = CHECKOUT or Path.cwd()
"""What a relative `runs_dir` starts from, where mlflow.db is, and the working directory of what mvit starts."""
