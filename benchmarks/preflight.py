"""Preflight benchmark: what `dry_run=true` says of memory and time against what runs then take.

    python benchmarks/preflight.py [--image-size 128] [--batches 16 64] [--models xx_small x_small small]
    python benchmarks/preflight.py --time [OVERRIDE ...]

Memory: each size with each batch trains four steps and evaluates; the estimate is that of the plan, the measurement
the peak of its process. Time: the run, its plan, and the same run again, from the command to its return; the second
run loads the graphs that the first one has compiled, unless they were in the cache before.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.machine import commit, cpu_model, positive
from benchmarks.runs import launch, metrics_of
from mvit.parent.freeze import Planned, plan_launch
from mvit.parent.host import this_host
from mvit.parent.memory import estimate_memory
from mvit.parent.report.estimate import past_runs
from mvit.parent.request.compose import compose

STEPS = 4


def planned(*overrides: str) -> Planned:
    return plan_launch(compose(overrides), host=this_host())


def memory(model: str, *, batch: int, image_size: int) -> str:
    """A line of the table."""
    job = [
        f"model={model}", "data=synthetic", f"data.image_size={image_size}", f"data.num_train={STEPS * batch}",
        "data.num_val=64", f"train.global_batch_size={batch}", f"train.eval_batch_size={batch}", "train.epochs=1",
    ]  # fmt: skip
    what = planned(*job)
    estimated = estimate_memory(what.config, what.plan).total / 2**20
    measured = metrics_of(*job)["perf/peak_rss_mb"]
    shape, ratio = f"{batch} x {image_size}x{image_size}", estimated / measured
    return f"| {model} | {shape} | {estimated:.0f} | {measured:.0f} | {ratio:.2f} |"


def run_s(*overrides: str) -> float:
    """Seconds of a run, from the command to its return; exits where the run fails."""
    began = time.monotonic()
    launch(*overrides)
    return time.monotonic() - began


def second_run(*overrides: str) -> str:
    """What the plan says after a first run, and what the second one takes."""
    with TemporaryDirectory() as folder:
        store = f"sqlite:///{folder}/mlflow.db"
        job = [f"runs_dir={folder}/runs", f"tracking.uri={store}", *overrides]
        first = run_s(*job)
        what = planned(*job)
        past = past_runs(what.config, what.plan, Path(folder) / "runs")
        estimated, measured = past.run_time_s(), run_s(*job)
    assert estimated is not None
    second = f"estimated {estimated:.1f} s, took {measured:.1f} s: {estimated / measured:.2f}"
    return f"first run {first:.1f} s; second: {second}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["xx_small", "x_small", "small"])
    parser.add_argument("--batches", nargs="+", type=positive, default=[16, 64])
    parser.add_argument("--image-size", type=positive, default=128)
    parser.add_argument("--time", nargs="*", metavar="OVERRIDE", help="of the default job: measure its time instead")
    arguments = parser.parse_args()
    print(f"{cpu_model()}; commit {commit()}")
    if arguments.time is not None:
        print(" ".join(["default job", *arguments.time]), second_run(*arguments.time), sep=": ")
        return
    print("| Model | Batch | estimated MiB | measured MiB | ratio |\n|---|---|--:|--:|--:|")
    for model in arguments.models:
        for batch in arguments.batches:
            print(memory(model, batch=batch, image_size=arguments.image_size), flush=True)


if __name__ == "__main__":
    main()
