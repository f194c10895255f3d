"""Loop benchmark: the step of a real run in its steady state against the same compiled step, called again and again.

    python benchmarks/loop.py [--case xx_small:32x64] [--rounds 5] [--steps 200]

The run is one of `launch.py`, without a store: it loads and augments its images, which are in memory, writes its
journal, and marks its heartbeat. What it says of its own step (`perf/step_ms`: no compilation, no evaluation) stands
against the median of as many bare steps on one batch, in a process of its own. They take turns, each round in the
opposite order.
"""

from __future__ import annotations

import argparse
import os
import sys

from benchmarks.machine import commit, cpu_model, positive
from benchmarks.results import Case, spread
from benchmarks.runs import metrics_of
from benchmarks.step import BY_NAME, Process, case_of


def of_run(case: Case, *, steps: int) -> dict[str, float]:
    """The metrics of a run of so many steps."""
    return metrics_of(
        f"model={case.model}", f"data.image_size={case.image_size}", f"train.global_batch_size={case.batch}",
        "data=synthetic", f"data.num_train={steps * case.batch}", f"data.num_val={case.batch}", "data.classes=1000",
        "train.epochs=1", f"train.eval_batch_size={case.batch}", "train.clip_norm=10",
    )  # fmt: skip


def bare_ms(case: Case, *, steps: int) -> float:
    """Median milliseconds of so many bare steps."""
    threads = len(os.sched_getaffinity(0))
    with Process(BY_NAME["mvit-fused"], python=sys.executable, case=case, threads=threads, steps=steps) as process:
        process.warm_up()
        return process.take("train", steps)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", type=case_of, default=case_of("xx_small:32x64"))
    parser.add_argument("--rounds", type=positive, default=5)
    parser.add_argument("--steps", type=positive, default=200)
    arguments = parser.parse_args()
    print(f"{cpu_model()}; commit {commit()}")
    case, steps = arguments.case, arguments.steps
    ratios: list[float] = []
    for number in range(arguments.rounds):
        if number % 2:
            bare, metrics = bare_ms(case, steps=steps), of_run(case, steps=steps)
        else:
            metrics, bare = of_run(case, steps=steps), bare_ms(case, steps=steps)
        run, waiting = metrics["perf/step_ms"], metrics["perf/data_wait_pct"]
        ratios.append(run / bare)
        print(f"run {run:.2f} ms ({waiting:.1f} % waiting for data), bare {bare:.2f} ms", flush=True)
    print(f"run over bare: {spread(ratios, '{:.3f}'.format)}, n = {len(ratios)}")


if __name__ == "__main__":
    main()
