"""A worker process that executes frozen runs one after the other, with a network that compiles in a second.

`python -m tests.effects.worker FOLDER ...`; beside each run's own files it leaves `observed.json`: what else a run of
the same configuration would do.
"""

import hashlib
import sys
from pathlib import Path
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import nn, ops

from mvit.config import ModelConfig, Precision, StepsRun, TrainRun
from mvit.files import write_json
from mvit.models import mobilevit
from mvit.models.layers import ConvNorm, dense
from mvit.models.mobilevit import MobileViT
from mvit.rundir.frozen import Run, read_run
from mvit.rundir.paths import RunDir
from mvit.worker import device
from mvit.worker.input import loader
from tests.effects.material import noise

OBSERVED = "observed.json"


class Head(nn.Cell):
    def __init__(self, features: int, num_classes: int) -> None:
        super().__init__()
        self.dense = dense(features, num_classes)

    def construct(self, x):
        return self.dense(x)


class StandIn(nn.Cell):
    """MobileViT's stem and a head: images (B, 3, H, W) -> logits (B, classes) float32."""

    channels_last = False

    def __init__(self, config: Any, *, num_classes: int) -> None:
        super().__init__()
        self.stem = ConvNorm(3, config.stem_channels, kernel_size=3, stride=2)
        self.final = Head(config.stem_channels, num_classes)

    def construct(self, images, key):
        return ops.cast(self.final(ops.mean(self.stem(images), (2, 3))), ms.float32)


NETWORKS: dict[str, list[str]] = {}
"""What `network` returned, by what it is of: most runs differ in something else."""


def network_of(run: Run) -> list[str]:
    """The network of a run, see `network`."""
    config, trains = run.config, isinstance(run.config, (TrainRun, StepsRun))
    key = f"{config.model!r} {config.precision!r} {run.plan.num_classes} {trains}"
    if key not in NETWORKS:
        NETWORKS[key] = network(config.model, config.precision, num_classes=run.plan.num_classes, trains=trains)
    return NETWORKS[key]


def network(model: ModelConfig, precision: Precision, *, num_classes: int, trains: bool) -> list[str]:
    """MobileViT as configured: the type that each of its cells computes in, and its logits for fixed images.

    A forward pass in training only for a run that trains. A CPU does not compute in bfloat16.
    """
    ms.set_seed(1)
    net = MobileViT(model, num_classes=num_classes)
    device.cast_network(net, precision)
    types = [
        f"{name} {cell.get_flags().get('fp16')} {cell.get_flags().get('bf16')}" for name, cell in net.cells_and_names()
    ]
    if precision.kind == "bf16":
        return types
    images = np.asarray(noise((32, 64)), np.float32).reshape(2, 32, 32, 3).transpose(0, 3, 1, 2) / 255
    for training in (False, True) if trains else (False,):
        logits = net.set_train(training)(ms.Tensor(images), ms.Tensor(1, ms.int32))
        types.append(hashlib.sha256(logits.asnumpy().tobytes()).hexdigest())
    return types


def digest(cell: nn.Cell) -> str:
    """Of the values of its parameters."""
    values = b"".join(parameter.asnumpy().tobytes() for parameter in cell.get_parameters())
    return hashlib.sha256(values).hexdigest()


def main(paths: list[Path]) -> None:
    runs = [read_run(RunDir(path)) for path in paths]
    device.open_device("CPU", threads=1, jit_level=None)
    ms.set_context(mode=ms.PYNATIVE_MODE)
    networks = [network_of(run) for run in runs]
    ms.set_context(mode=ms.GRAPH_MODE)

    device.open_device = lambda *_, **__: None  # a process sets its threads once
    mobilevit.MobileViT = StandIn
    pools: list[int] = []
    make = loader.Loader.__init__

    def made(self: Any, *arguments: Any, **options: Any) -> None:
        make(self, *arguments, **options)
        pools.append(self.pool._max_workers)

    loader.Loader.__init__ = made
    from mvit.worker.main import main as work  # imports the network that stands in
    from mvit.worker.noise_steps import NoiseSteps
    from mvit.worker.session import Session

    built: list[NoiseSteps] = []
    build = NoiseSteps.build

    def build_and_keep(session: Session, config: StepsRun) -> NoiseSteps:
        built.append(build(session, config))
        return built[-1]

    NoiseSteps.build = build_and_keep
    for run, known in zip(runs, networks, strict=True):
        if run.plan.device == "CPU":
            work(run.folder)
        trained = [digest(cell) for steps in built for cell in steps.cells.stateful]
        write_json(run.folder.path / OBSERVED, {"network": known, "pools": pools, "trained": trained})
        pools.clear()
        built.clear()


if __name__ == "__main__":
    main([Path(path) for path in sys.argv[1:]])
