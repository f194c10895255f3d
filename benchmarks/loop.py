"""Loop benchmark: the step of a run in its steady state against the same compiled step, called again and again.

    python benchmarks/loop.py [--case xx_small:16x256] [--blocks 20] [--steps 20] [OVERRIDE ...]

The run is the default job with the model, image size and batch of the case, without a store: it loads and augments its
images, which are in memory, writes its journal, and marks its heartbeat. After each block of steps its process takes as
many bare ones on the last batch, so that both have the same graph, memory and neighbours. On a CPU, loading and
augmenting use the cores that the step uses: `augment=none` leaves the loop's own share.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.machine import CHECKOUT, commit, cpu_model, positive
from benchmarks.results import spread
from benchmarks.runs import default_job, frozen
from benchmarks.step import case_of
from mvit.parent.host import this_host

AFTERWARDS = 5
"""Steps that do not count after bare ones, during which batches were prepared ahead."""


def blocks(overrides: list[str], *, steps: int) -> list[tuple[float, float]]:
    """For each block of steps of the job, milliseconds of a step in the run and of a bare one."""
    with TemporaryDirectory() as room:
        run, environment = frozen(overrides, Path(room) / "run", host=this_host())
        subject = ("benchmarks/subjects/loop_of_mvit.py", str(run.folder.path), str(steps), str(AFTERWARDS))
        done = subprocess.run(
            [sys.executable, *subject],
            cwd=CHECKOUT,
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode:
        sys.exit(f"{done.stderr}\n{' '.join(subject)}: exit code {done.returncode}")
    return [tuple(json.loads(line)) for line in done.stdout.splitlines()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", type=case_of, default=case_of("xx_small:16x256"))
    parser.add_argument("--blocks", type=positive, default=20)
    parser.add_argument("--steps", type=positive, default=20, help="steps of a block")
    parser.add_argument("overrides", nargs="*", metavar="OVERRIDE", help="of the default job, such as augment=none")
    arguments = parser.parse_args()
    steps = arguments.steps
    job = default_job(arguments.case, steps=arguments.blocks * (steps + AFTERWARDS))
    pairs = blocks([*job, "tracking=none", *arguments.overrides], steps=steps)
    in_run, bare = ([pair[index] for pair in pairs] for index in (0, 1))
    ratios = [a / b for a, b in pairs]
    print(f"{cpu_model()}; commit {commit()}; {arguments.case.label} {' '.join(arguments.overrides)}")
    print(f"in the run {spread(in_run, '{:.2f}'.format)} ms, bare {spread(bare, '{:.2f}'.format)} ms")
    print(f"run over bare: {spread(ratios, '{:.3f}'.format)}, {len(pairs)} blocks of {steps} steps")


if __name__ == "__main__":
    main()
