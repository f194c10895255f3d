"""Loop benchmark: the step of a real run in its steady state against the same compiled step, called again and again.

    python benchmarks/loop.py [--case xx_small:32x64] [--rounds 5] [--steps 200]

The run is one of `launch.py`, without a store: it loads and augments its images, which are in memory, writes its
journal, and marks its heartbeat. What it says of its own step (`perf/step_ms`: no compilation, no evaluation) stands
against the median of as many bare steps on one batch, in a process of its own. They take turns, each round in the
opposite order.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from dataclasses import replace
from statistics import median
from tempfile import TemporaryDirectory

from benchmarks.machine import CHECKOUT, commit, cpu_model, positive
from benchmarks.results import Case, spread
from benchmarks.step import BY_NAME, Process, case_of


def of_run(case: Case, *, steps: int) -> dict[str, float]:
    """The metrics of a run of so many steps."""
    with TemporaryDirectory() as folder:
        overrides = [
            f"model={case.model}", f"data.image_size={case.image_size}", f"train.global_batch_size={case.batch}",
            "data=synthetic", f"data.num_train={steps * case.batch}", f"data.num_val={case.batch}", "data.classes=1000",
            "train.epochs=1", f"train.eval_batch_size={case.batch}", "train.clip_norm=10",
            "tracking=none", f"runs_dir={folder}",
        ]  # fmt: skip
        done = subprocess.run(
            [sys.executable, "launch.py", *overrides], cwd=CHECKOUT, stdout=subprocess.PIPE, text=True, check=False
        )
        if done.returncode:
            sys.exit(f"the run ended with exit code {done.returncode}")
        (run,) = (line.rsplit(", ", 1)[1] for line in done.stdout.splitlines() if line.startswith("mvit: FINISHED"))
        return json.loads((CHECKOUT / run / "result.json").read_text())["metrics"]


def bare_ms(case: Case, *, steps: int, threads: int) -> float:
    """Median milliseconds of so many bare steps."""
    subject = replace(BY_NAME["mvit-fused"], steps=steps)
    with Process(subject, python=sys.executable, case=case, threads=threads, steps=steps) as process:
        process.warm_up()
        return process.take("train", steps)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", type=case_of, default=case_of("xx_small:32x64"))
    parser.add_argument("--rounds", type=positive, default=5)
    parser.add_argument("--steps", type=positive, default=200)
    arguments = parser.parse_args()
    print(f"{cpu_model()}; commit {commit()}")
    case, steps, threads = arguments.case, arguments.steps, len(os.sched_getaffinity(0))
    ratios: list[float] = []
    for number in range(arguments.rounds):
        first = bare_ms(case, steps=steps, threads=threads) if number % 2 else None
        metrics = of_run(case, steps=steps)
        bare, run = first or bare_ms(case, steps=steps, threads=threads), metrics["perf/step_ms"]
        ratios.append(run / bare)
        print(f"run {run:.2f} ms ({metrics['perf/data_wait_pct']:.1f} % waiting for data), bare {bare:.2f} ms")
    print(f"run over bare: {spread(ratios, '{:.3f}'.format)}, n = {len(ratios)}, median {median(ratios):.3f}")


if __name__ == "__main__":
    main()
