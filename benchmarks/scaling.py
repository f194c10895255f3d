"""Scaling benchmark: a job on one worker and on two, and the share of a step that the all-reduce takes.

    python benchmarks/scaling.py [--case xx_small:32x64] [--rounds 5] [--steps 100] [--json FILE]

The batch of the case is what one worker takes in a step. Four ways to train take turns, each round in the opposite
order: one worker of one thread; one of two threads; two workers that share the batch (strong scaling); two workers with
a whole batch each (weak scaling). The runs are those of the default job, without a store, on images that are in memory.

`--json` writes FILE after each round. Files named experiments/results/scaling-*.json are among those that
benchmarks/tables.py makes docs/performance.md from.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks.machine import commit, cpu_model, now, positive
from benchmarks.results import ScalingResult, Way, write
from benchmarks.runs import default_job, metrics_of
from benchmarks.step import case_of
from benchmarks.tables import scaling_tables


def ways(batch: int) -> list[Way]:
    """The ways to train, without measurements; the first is what the others are compared with."""
    return [
        Way(workers=1, threads=1, batch=batch),
        Way(workers=1, threads=2, batch=batch),
        Way(workers=2, threads=1, batch=batch),
        Way(workers=2, threads=1, batch=2 * batch),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", type=case_of, default=case_of("xx_small:32x64"))
    parser.add_argument("--rounds", type=positive, default=5)
    parser.add_argument("--steps", type=positive, default=100)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the measurements")
    arguments = parser.parse_args()
    case = arguments.case
    result = ScalingResult(date=now(), commit=commit(), cpu=cpu_model(), case=case, ways=tuple(ways(case.batch)))
    for number in range(arguments.rounds):
        measured = list(result.ways)
        order = range(len(measured)) if number % 2 else reversed(range(len(measured)))
        for index in order:
            way = measured[index]
            metrics = metrics_of(
                *default_job(case.model_copy(update={"batch": way.batch}), steps=arguments.steps),
                *("topology=cpu", f"topology.workers={way.workers}", f"topology.threads={way.threads}"),
            )
            measured[index] = way.with_round(
                step_ms=metrics["perf/step_ms"], all_reduce_pct=metrics.get("perf/all_reduce_pct", 0.0)
            )
        result = result.model_copy(update={"ways": tuple(measured)})
        if arguments.json:
            write(result, arguments.json)
    print(scaling_tables(result))


if __name__ == "__main__":
    main()
