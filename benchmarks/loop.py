"""Loop benchmark: the step of a real run in its steady state against the same compiled step, called again and again.

    python benchmarks/loop.py [--case xx_small:16x256] [--rounds 5] [--steps 100] [OVERRIDE ...]

The run is the default job with the model, image size and batch of the case, without a store: it loads and augments its
images, which are in memory, writes its journal, and marks its heartbeat. What it says of its own step (`perf/step_ms`:
no compilation, no evaluation) stands against the median of as many bare steps on one batch, in a process of its own.
They take turns, each round in the opposite order. On a CPU, loading and augmenting use the cores that the step uses:
`augment=none` leaves the loop's own share.
"""

from __future__ import annotations

import argparse
import os
import sys

from benchmarks.machine import commit, cpu_model, positive
from benchmarks.results import Case, spread
from benchmarks.runs import steady
from benchmarks.step import BY_NAME, Process, case_of


def bare_ms(case: Case, *overrides: str, steps: int) -> float:
    """Median milliseconds of so many bare steps."""
    threads = len(os.sched_getaffinity(0))
    subject, python = BY_NAME["mvit-fused"], sys.executable
    same = ("data.classes=10", "train.clip_norm=null", *overrides)
    with Process(subject, python=python, case=case, threads=threads, steps=steps, overrides=same) as process:
        process.warm_up()
        return process.take("train", steps)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", type=case_of, default=case_of("xx_small:16x256"))
    parser.add_argument("--rounds", type=positive, default=5)
    parser.add_argument("--steps", type=positive, default=100)
    parser.add_argument("overrides", nargs="*", metavar="OVERRIDE", help="of the default job, such as augment=none")
    arguments = parser.parse_args()
    print(f"{cpu_model()}; commit {commit()}")
    case, steps, overrides = arguments.case, arguments.steps, arguments.overrides
    ratios: list[float] = []
    for number in range(arguments.rounds):
        if number % 2:
            bare, metrics = bare_ms(case, *overrides, steps=steps), steady(case, *overrides, steps=steps)
        else:
            metrics, bare = steady(case, *overrides, steps=steps), bare_ms(case, *overrides, steps=steps)
        run, waiting = metrics["perf/step_ms"], metrics["perf/data_wait_pct"]
        ratios.append(run / bare)
        print(f"run {run:.2f} ms ({waiting:.1f} % waiting for data), bare {bare:.2f} ms", flush=True)
    print(f"run over bare: {spread(ratios, '{:.3f}'.format)}, n = {len(ratios)}")


if __name__ == "__main__":
    main()
