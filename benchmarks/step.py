"""Step benchmark: milliseconds per training and evaluation step, in the fused and in the plain form.

    python benchmarks/step.py [OVERRIDE ...] [--rounds 5] [--steps 5] [--json FILE]

    python benchmarks/step.py model=x_small data.image_size=256 train.global_batch_size=16

Each form is a process of its own with the session, cells and graphs of a real run. The processes take turns in rounds,
so that other work on the machine affects all of them; a waiting one uses no processor. Batches are in memory: this is
the step alone. Compile time is from a process without any cache; memory is the process's peak.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from importlib.metadata import version
from itertools import repeat
from pathlib import Path
from statistics import median
from typing import Any, cast

FORMS = ("fused", "plain")
DEFAULT = ("data=synthetic", "data.image_size=256", "data.classes=1000", "train.global_batch_size=16")
SMALL = ("data.num_train=64", "data.num_val=64", "tracking=none")
CHECKOUT = Path(__file__).resolve().parents[1]


@dataclass
class Measured:
    """What one form's process reported."""

    facts: dict[str, Any]
    train_ms: list[float] = field(default_factory=list)
    evaluate_ms: list[float] = field(default_factory=list)
    peak_mb: float = 0.0


# The process of one form ----------------------------------------------------------------------------------------


def serve(overrides: list[str]) -> None:
    """Build the run's step, report how long it took to compile, then run as many steps as each line of stdin says."""
    from mvit.config import TrainRun
    from mvit.parent.command import make_command
    from mvit.parent.freeze import freeze, plan_launch
    from mvit.parent.host import this_host
    from mvit.parent.kernels import library_of
    from mvit.parent.request.compose import compose
    from mvit.parent.slot import Slot

    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print is not an answer
    with tempfile.TemporaryDirectory() as room:
        planned = plan_launch(compose(overrides), host=this_host())
        run = freeze(planned, Path(room) / "run", made_of=({}, ""))
        kernels = library_of(run.plan, say=lambda line: print(line, file=sys.stderr))
        command = make_command(run, host=this_host(), slot=Slot(), port=1, attempt=1, kernels=kernels)
        if any(os.environ.get(key) != value for key, value in command.env.items()):  # read when libraries load
            os.environ.update(command.env)
            os.dup2(answers.fileno(), 1)
            os.execv(sys.executable, [sys.executable, __file__, "--serve", *overrides])

        import mindspore as ms
        import numpy as np

        from mvit.worker import device
        from mvit.worker.cells import build_cells
        from mvit.worker.compile import compile_graphs
        from mvit.worker.heartbeat import Heartbeat
        from mvit.worker.input.loader import Batch
        from mvit.worker.input.mix import UNMIXED
        from mvit.worker.session import open_session

        config, plan = run.config, run.plan
        assert isinstance(config, TrainRun)
        device.open_device(plan.device, threads=plan.threads, jit_level=plan.jit_level)
        heartbeat = Heartbeat(run.folder.status / "0.json", rank=0)
        session = open_session(run, rank=0, heartbeat=heartbeat, augment=config.augment, seed=config.seed)
        cells = build_cells(session, config)
        compiled = dict(compile_graphs(plan.graphs, train=cells.step, evaluate=cells.evaluate_step))
        random = np.random.default_rng(0)

        def batch(size: int) -> Batch:
            side = config.data.image_size
            images = random.integers(0, 256, (size, side, side, 3)).astype(np.uint8)
            labels = random.integers(0, plan.num_classes, size).astype(np.int32)
            return Batch(images, labels, np.ones(size, np.float32))

        trained, evaluated = batch(plan.buckets[0].per_device_batch_size), batch(config.eval_batch_size)
        held_out = tuple(map(ms.Tensor, (evaluated.images, evaluated.labels, evaluated.mask)))
        draws = [(UNMIXED, 1)] * plan.accumulation

        def train() -> None:
            loss, _ = cells.step(repeat(trained), draws, lr=1e-4, decay=0.01)
            loss.asnumpy()  # synchronises

        def evaluate() -> None:
            cells.evaluate_step.set_train(False)
            cells.evaluate_step(*held_out)[0].asnumpy()

        def timed(step: Any, count: int) -> list[float]:
            times: list[float] = []
            for _ in range(count):
                began = time.perf_counter()
                step()
                times.append(1e3 * (time.perf_counter() - began))
            return times

        for step in (train, evaluate):
            step()
        kernels = plan.kernels.isa or plan.kernels.reason
        print(json.dumps({"compile_s": compiled, "kernels": kernels, "threads": plan.threads}), file=answers)
        for line in sys.stdin:
            count = int(line)
            times = {"train_ms": timed(train, count), "evaluate_ms": timed(evaluate, count)}
            print(json.dumps({**times, "peak_mb": device.peak_rss_mb()}), file=answers)
        answers.flush()
        os._exit(0)


# The comparison --------------------------------------------------------------------------------------------------


def compare(overrides: list[str], *, rounds: int, steps: int) -> dict[str, Measured]:
    processes = {}
    measured: dict[str, Measured] = {}
    for form in FORMS:
        command = [sys.executable, __file__, "--serve", *DEFAULT, *overrides, *SMALL, f"model.kernels={form}"]
        processes[form] = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=CHECKOUT
        )
        measured[form] = Measured(_answer(processes[form]))
    for number in range(rounds):
        for form in FORMS if number % 2 else reversed(FORMS):
            stdin = processes[form].stdin
            assert stdin
            print(steps, file=stdin, flush=True)
            answer = _answer(processes[form])
            measured[form].train_ms.append(median(answer["train_ms"]))
            measured[form].evaluate_ms.append(median(answer["evaluate_ms"]))
            measured[form].peak_mb = answer["peak_mb"]
    for process in processes.values():
        process.communicate()
    return measured


def _answer(process: subprocess.Popen[str]) -> dict[str, Any]:
    assert process.stdout
    line = process.stdout.readline()
    if not line:
        sys.exit(f"a measured process ended with code {process.wait()}")
    return cast("dict[str, Any]", json.loads(line))


def table(measured: dict[str, Measured]) -> str:
    lines = [
        "| form | kernels | train, ms | evaluate, ms | compile train, s | compile evaluate, s | peak, MB |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for form, one in measured.items():
        compiled = one.facts["compile_s"]
        cells = (
            form,
            str(one.facts["kernels"]),
            _spread(one.train_ms),
            _spread(one.evaluate_ms),
            f"{sum(value for name, value in compiled.items() if name != 'evaluate'):.1f}",
            f"{compiled['evaluate']:.1f}",
            f"{one.peak_mb:.0f}",
        )
        lines.append(f"| {' | '.join(cells)} |")
    fused, plain = measured["fused"], measured["plain"]
    of_rounds = [
        [slow / fast for slow, fast in zip(one, other, strict=True)]
        for one, other in ((plain.train_ms, fused.train_ms), (plain.evaluate_ms, fused.evaluate_ms))
    ]
    lines.append(f"| plain / fused | | {_spread(of_rounds[0], 2)} | {_spread(of_rounds[1], 2)} | | | |")
    return "\n".join(lines)


def _spread(values: list[float], digits: int = 0) -> str:
    """Median (minimum-maximum)."""
    return f"{median(values):.{digits}f} ({min(values):.{digits}f}-{max(values):.{digits}f})"


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure the step in its fused and its plain form.")
    parser.add_argument("overrides", nargs="*", help="as for launch.py")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=5, help="steps in a turn")
    parser.add_argument("--json", type=Path, help="write the measurements")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        serve(arguments.overrides)
        return
    load = os.getloadavg()[0]
    measured = compare(arguments.overrides, rounds=arguments.rounds, steps=arguments.steps)
    versions = ", ".join(f"{name} {version(name)}" for name in ("mindspore", "numpy"))
    threads = measured["fused"].facts["threads"]
    print(f"{_cpu()}, {threads} threads; Python {platform.python_version()}, {versions}")
    print(f"{' '.join([*DEFAULT, *arguments.overrides])}; {arguments.rounds} rounds of {arguments.steps} steps")
    print(f"load before and after: {load:.1f}, {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores\n")
    print(table(measured))
    if arguments.json:
        forms = {form: vars(one) for form, one in measured.items()}
        arguments.json.write_text(json.dumps({"cpu": _cpu(), "overrides": arguments.overrides, **forms}, indent=1))


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


if __name__ == "__main__":
    main()
