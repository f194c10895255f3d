"""A real run, for the benchmarks that measure whole runs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.machine import CHECKOUT
from benchmarks.results import Case


def metrics_of(*overrides: str) -> dict[str, float]:
    """The metrics of the result of a run of `launch.py`, which leaves nothing; exits where the run fails."""
    with TemporaryDirectory() as folder:
        command = [sys.executable, "launch.py", "tracking=none", f"runs_dir={folder}", *overrides]
        done = subprocess.run(command, cwd=CHECKOUT, stdout=subprocess.DEVNULL, check=False)
        if done.returncode:
            sys.exit(f"launch.py {' '.join(overrides)}: exit code {done.returncode}")
        (result,) = Path(folder).glob("*/*/result.json")
        return json.loads(result.read_text())["metrics"]


def default_job(case: Case, *, steps: int) -> list[str]:
    """Overrides that give the default job this model, image size and batch, and so many steps without evaluation."""
    return [
        f"model={case.model}", f"data.image_size={case.image_size}", f"train.global_batch_size={case.batch}",
        f"train.eval_batch_size={case.batch}", f"train.max_steps={steps}", "train.epochs=1000",
        "train.eval_every_epochs=1000",
    ]  # fmt: skip
