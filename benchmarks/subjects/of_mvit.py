"""A subject of the step benchmark: mvit, with the session, cells and graphs of a real run.

    python benchmarks/subjects/of_mvit.py \
        '{"model": "xx_small", "image_size": 256, "batch": 16, "threads": 2}' fused|plain [avx2] [bf16] [traffic]

With `avx2`, the plan is made as if the CPU had no wider vectors; with `bf16`, activations are kept as that. With
`traffic`, the fused operators are called one by one, without graphs, and a first training step counts what they read
and write.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from itertools import repeat
from pathlib import Path
from typing import Any

from serving import answers, seconds, serve  # pyright: ignore[reportMissingImports]

from benchmarks.runs import frozen
from mvit.config import TrainRun
from mvit.models.kernels.build import Support
from mvit.parent.host import this_host
from mvit.rundir.frozen import Run

PREPARED = "MVIT_SUBJECT"
"""Tells the process that it has the environment of a worker."""


def main() -> None:
    stream = answers()
    case, form, held = json.loads(sys.argv[1]), sys.argv[2], "avx2" in sys.argv[3:]
    activations = "bf16" if "bf16" in sys.argv[3:] else "fp32"
    host = replace(this_host(), kernels=Support("avx2")) if held else this_host()
    overrides = [
        f"model={case['model']}", f"model.kernels={form}", f"data.image_size={case['image_size']}",
        f"train.global_batch_size={case['batch']}", f"train.eval_batch_size={case['batch']}",
        f"topology.threads={case['threads']}", "topology.compile_cache=false", "tracking=none", "train.clip_norm=10",
        f"train.activations={activations}", "data=synthetic", "data.classes=1000", "data.num_train=64",
        "data.num_val=64", "data.workers=1",
    ]  # fmt: skip
    with tempfile.TemporaryDirectory() as room:
        run, environment = frozen(overrides, Path(room) / "run", host=host)
        counted = "traffic" in sys.argv[3:]
        subject = prepare(run, batch=case["batch"], counted=counted) if PREPARED in os.environ else None
    if subject is None:  # libraries read the environment when they are loaded
        os.environ.update({**environment, PREPARED: "1"})
        os.dup2(stream.fileno(), 1)
        os.execv(sys.executable, [sys.executable, *sys.argv])
    serve(stream, *subject)


def prepare(run: Run, *, batch: int, counted: bool) -> tuple[dict[str, Any], dict[str, Callable[[], None]]]:
    """The facts of a compiled run, and its steps; `counted`, of one that counts its traffic."""
    import mindspore as ms
    import numpy as np

    from mvit.worker import device
    from mvit.worker.cells import StepRecipe, build_cells
    from mvit.worker.compile import compile_graphs
    from mvit.worker.heartbeat import Heartbeat
    from mvit.worker.input.loader import Batch
    from mvit.worker.input.mix import UNMIXED
    from mvit.worker.session import open_session

    config, plan = run.config, run.plan
    assert isinstance(config, TrainRun)
    device.open_device(plan.device, threads=plan.threads, jit_level=plan.jit_level)
    traffic = count_traffic() if counted else {}
    heartbeat = Heartbeat(run.folder.status / "0.json", rank=0)
    session = open_session(run, rank=0, heartbeat=heartbeat, augment=config.augment, seed=config.seed)
    cells = build_cells(session, StepRecipe.of_training(config))
    compiled = None if counted else compile_graphs(session, train=cells.step, evaluate=cells.evaluate_step)
    random, side = np.random.default_rng(0), config.data.image_size
    images = random.integers(0, 256, (batch, side, side, 3), np.uint8)
    labels = random.integers(0, plan.num_classes, batch).astype(np.int32)
    loaded = Batch(images, labels, np.ones(batch, np.float32))
    held_out = tuple(map(ms.Tensor, (images, labels, loaded.mask)))

    def train() -> None:
        loss, _ = cells.step(repeat(loaded), [(UNMIXED, 1)], lr=1e-4, decay=0.01)
        loss.asnumpy()  # synchronises

    def evaluate() -> None:
        cells.evaluate_step.set_train(False)
        cells.evaluate_step(*held_out)[0].asnumpy()

    if compiled is None:
        train()
        return {"macs_per_image": plan.macs, "operators_mb": traffic}, {}
    facts = {
        "first_s": compiled.metrics()["perf/compile_s"] + seconds(train),
        "versions": {"mindspore": ms.__version__},
        "isa": plan.kernels.isa or f"oneDNN up to {os.environ.get('ONEDNN_MAX_CPU_ISA', 'what the CPU has')}",
        "parameters": sum(parameter.size for parameter in session.net.trainable_params()),
    }
    return facts, {"train": train, "evaluate": evaluate}


def count_traffic() -> dict[str, float]:
    """Have custom operators called one by one, and count here, by name, what they read and write, in 1e6 bytes."""
    import mindspore as ms
    from mindspore import ops

    traffic: dict[str, float] = {}

    class Counted(ops.Custom):
        def __call__(self, *inputs: Any) -> Any:
            outputs = super().__call__(*inputs)
            tensors = (*inputs, *(outputs if isinstance(outputs, tuple) else (outputs,)))
            name = self.func.rpartition(":mvit_")[2]
            traffic[name] = traffic.get(name, 0.0) + 1e-6 * sum(tensor.nbytes for tensor in tensors)
            return outputs

    ms.set_context(mode=ms.PYNATIVE_MODE)
    ops.Custom = Counted
    return traffic


if __name__ == "__main__":
    main()
