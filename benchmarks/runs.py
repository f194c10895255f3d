"""A real run, for the benchmarks that measure whole runs."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir

from benchmarks.machine import CHECKOUT
from benchmarks.results import Case
from mvit.models.kernels.build import KERNELS_VARIABLE
from mvit.parent.command import worker_environment
from mvit.parent.freeze import freeze, plan_launch
from mvit.parent.host import Host
from mvit.parent.kernels import library_of
from mvit.parent.request.compose import compose
from mvit.rundir.frozen import Run


def launch(*overrides: str) -> None:
    """Run `launch.py`; exits where the run fails."""
    command = [sys.executable, "launch.py", *overrides]
    if code := subprocess.run(command, cwd=CHECKOUT, stdout=subprocess.DEVNULL, check=False).returncode:
        sys.exit(f"launch.py {' '.join(overrides)}: exit code {code}")


def metrics_of(*overrides: str) -> dict[str, float]:
    """The metrics of the result of a run of `launch.py`, which leaves nothing; exits where the run fails."""
    with TemporaryDirectory() as folder:
        launch("tracking=none", f"runs_dir={folder}", *overrides)
        (result,) = Path(folder).glob("*/*/result.json")
        return json.loads(result.read_text())["metrics"]


def frozen(overrides: Sequence[str], folder: Path, *, host: Host) -> tuple[Run, dict[str, str]]:
    """A run that a benchmark executes itself, and what its worker needs in the environment."""
    run = freeze(plan_launch(compose(overrides), host=host), folder, made_of=({}, ""))
    environment = worker_environment(run.config.topology, host=host, logs=Path(gettempdir()))
    if library := library_of(run.plan, say=lambda _: None):
        environment[KERNELS_VARIABLE] = str(library)
    return run, environment


def default_job(case: Case, *, steps: int) -> list[str]:
    """Overrides that give the default job this model, image size and batch, and so many steps without evaluation."""
    return [
        f"model={case.model}", f"data.image_size={case.image_size}", f"train.global_batch_size={case.batch}",
        f"train.eval_batch_size={case.batch}", f"train.max_steps={steps}", "train.epochs=1000",
        "train.eval_every_epochs=1000",
    ]  # fmt: skip
