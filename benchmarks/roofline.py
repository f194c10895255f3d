"""Roofline benchmark: what memory and multiplications would allow a training step on this machine, and where it stands.

    python benchmarks/roofline.py [--cases xx_small:16x256 ...] [--rounds 5] [--steps 5] [--threads N] [--json FILE]

A step multiplies what its forward pass does, and twice as much for the gradients; it moves what each fused operator
reads and writes, once each, as if nothing but that touched memory and nothing stayed in a cache. How fast the machine
multiplies is measured with NumPy's product of large matrices, how fast it moves by copying memory that no cache holds,
on as many threads, in turn with the steps. The longer of the two times is the roof.

`--json` writes FILE after each case. Files named experiments/results/roofline-*.json are among those that
benchmarks/tables.py makes docs/performance.md from.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from benchmarks.machine import commit, cpu_model, now, positive
from benchmarks.results import Case, Roof, RooflineResult, write
from benchmarks.step import BY_NAME, Process, Subject, case_of
from benchmarks.subjects.serving import seconds
from benchmarks.tables import roofline_table

CASES = ("xx_small:16x256", "x_small:16x256", "small:16x256", "xx_small:32x64")
SIDE = 2048
"""Rows and columns of a matrix: 50 MB for three, and 17 GFLOP for a product."""
COPIED = 256_000_000
"""Bytes: several times the largest cache."""
TRAFFIC = Subject("mvit-traffic", "mvit", ("fused", "traffic"))


def fastest_s(act: Callable[[], object]) -> float:
    """The shortest of three times: what the machine can do."""
    return min(seconds(act) for _ in range(3))


class Machine:
    """Multiplies and copies on so many threads."""

    def __init__(self, threads: int) -> None:
        random = np.random.default_rng(0)
        self.matrices = [random.normal(size=(SIDE, SIDE)).astype(np.float32) for _ in range(2)]
        self.product = np.empty((SIDE, SIDE), np.float32)
        self.parts = np.array_split(np.ones(COPIED // 4, np.float32), threads)
        self.copies = np.array_split(np.zeros(COPIED // 4, np.float32), threads)
        self.pool = ThreadPoolExecutor(threads)

    def gflop_per_s(self) -> float:
        return 2e-9 * SIDE**3 / fastest_s(lambda: np.matmul(*self.matrices, out=self.product))

    def gb_per_s(self) -> float:
        return 2e-9 * COPIED / fastest_s(lambda: list(self.pool.map(np.copyto, self.copies, self.parts)))


def roof(case: Case, machine: Machine, *, threads: int, rounds: int, steps: int) -> Roof:
    """Let a step and the machine's two rates take turns."""
    with Process(TRAFFIC, python=sys.executable, case=case, threads=threads, steps=1) as process:
        work = process.facts
    step_ms: list[float] = []
    multiplied: list[float] = []
    moved: list[float] = []
    with Process(BY_NAME["mvit-fused"], python=sys.executable, case=case, threads=threads, steps=steps) as process:
        process.warm_up()
        for _ in range(rounds):
            step_ms.append(process.take("train", steps))
            multiplied.append(round(machine.gflop_per_s(), 1))
            moved.append(round(machine.gb_per_s(), 2))
    # A multiplication and an addition for each MAC; the gradients of inputs and of weights cost as much each.
    gflop = 3 * 2e-9 * case.batch * work["macs_per_image"]
    return Roof(
        case=case,
        gflop=round(gflop, 2),
        operators_mb={name: round(mb, 2) for name, mb in work["operators_mb"].items()},
        step_ms=tuple(step_ms),
        gflop_per_s=tuple(multiplied),
        gb_per_s=tuple(moved),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", type=case_of, default=[case_of(text) for text in CASES])
    parser.add_argument("--rounds", type=positive, default=5)
    parser.add_argument("--steps", type=positive, default=5)
    parser.add_argument("--threads", type=positive, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the measurements")
    arguments = parser.parse_args()
    threads = arguments.threads
    machine = Machine(threads)
    result = RooflineResult(date=now(), commit=commit(), cpu=cpu_model(), threads=threads, roofs=())
    for case in arguments.cases:
        print(case.label, file=sys.stderr)
        measured = roof(case, machine, threads=threads, rounds=arguments.rounds, steps=arguments.steps)
        result = result.model_copy(update={"roofs": (*result.roofs, measured)})
        if arguments.json:
            write(result, arguments.json)
    print(roofline_table(result))


if __name__ == "__main__":
    main()
