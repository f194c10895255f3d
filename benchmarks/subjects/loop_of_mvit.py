"""The subject of the loop benchmark: a worker that takes bare steps between those of its run.

    python benchmarks/subjects/loop_of_mvit.py RUN_DIR STEPS AFTERWARDS

After each block of STEPS steps of the run it calls the same compiled step as often on the last batch, and prints the
milliseconds of a step in the run and of a bare one. The first AFTERWARDS steps after bare ones are in no block.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from itertools import repeat
from pathlib import Path
from typing import Any

from serving import answers  # pyright: ignore[reportMissingImports]

from mvit.rundir.paths import RunDir
from mvit.worker import main as worker


def take_turns(stream: Any, *, steps: int, afterwards: int) -> None:
    """Let blocks of this process's training steps take turns with bare ones."""
    from mvit.worker.step import RunStep

    in_run = RunStep.__call__
    taken, began = 0, 0.0

    def call(self: Any, batches: Iterator[Any], draws: Any, **rates: float) -> Any:
        nonlocal taken, began
        loaded = [next(batches) for _ in draws]
        outcome = in_run(self, iter(loaded), draws, **rates)
        taken += 1
        if taken == afterwards:
            outcome[0].asnumpy()  # synchronises
            began = time.perf_counter()
        if taken == afterwards + steps:
            outcome[0].asnumpy()
            middle = time.perf_counter()
            for _ in range(steps):
                outcome = in_run(self, repeat(loaded[-1]), draws, **rates)
            outcome[0].asnumpy()
            after = time.perf_counter()
            print(json.dumps([1e3 * (middle - began) / steps, 1e3 * (after - middle) / steps]), file=stream)
            taken = 0
        return outcome

    RunStep.__call__ = call


if __name__ == "__main__":
    take_turns(answers(), steps=int(sys.argv[2]), afterwards=int(sys.argv[3]))
    worker.main(RunDir(Path(sys.argv[1])))
