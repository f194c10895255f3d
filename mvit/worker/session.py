"""The session: what a worker of any task builds before it computes."""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import mindspore as ms
import numpy as np

from mvit.config import AugmentConfig, CheckpointConfig, RunConfig
from mvit.data.dataset import open_splits
from mvit.data.source import Source
from mvit.models import mobilevit
from mvit.models.kernels import network as fused
from mvit.models.kernels import operators
from mvit.models.kernels.build import KERNELS_VARIABLE
from mvit.plan import LaunchPlan
from mvit.rundir.frozen import Run, run_digest
from mvit.rundir.journal import Journal
from mvit.rundir.status import Stage
from mvit.worker import checkpoint, collectives, device, images
from mvit.worker.heartbeat import Heartbeat
from mvit.worker.input.loader import Batch, Loader


class NullJournal:
    """The journal of every rank but 0."""

    def metrics(self, metrics: dict[str, float], *, step: int, epoch: int) -> None: ...

    def event(self, event: str, **fields: object) -> None: ...

    def close(self) -> None: ...


@dataclass(frozen=True)
class Session:
    """A run as one worker holds it: its data, its network, and the other workers."""

    run: Run
    digest: str
    """The sha256 of run.json."""
    rank: int
    heartbeat: Heartbeat
    journal: Journal | NullJournal
    workers: collectives.Workers
    train_source: Source
    val_source: Source
    loader: Loader
    net: mobilevit.MobileViT
    normalise: images.Normalise

    def load(self, request: CheckpointConfig) -> checkpoint.Weights:
        """Give the network the weights of a checkpoint; returns which they are. Raises `CheckpointError`."""
        weights = checkpoint.weights_of(request)
        checkpoint.load(self.net, weights.tensors, source=weights.source)
        return weights

    def in_step(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """The batches, before each of which the workers wait for one another; every worker must take as many.

        Without it, a worker that is half a minute ahead at the end gives up: MindSpore's collectives on a CPU wait no
        longer.
        """
        for batch in batches:
            self.heartbeat.mark()  # of those that wait, who has come; the one with fewest marks has not
            self.workers.sum(np.zeros(1, np.float32))
            yield batch


def open_session(
    run: Run, *, rank: int, heartbeat: Heartbeat, augment: AugmentConfig | None = None, seed: int = 0
) -> Session:
    """Open the data and build the network.

    `seed` is that of its random weights and of the augmentation; a task that does not train has neither.
    """
    config, plan = run.config, run.plan
    journal = Journal(run.folder.journal) if rank == 0 else NullJournal()
    workers = collectives.Workers(plan.world_size)

    heartbeat.stage(Stage.DATA)
    train_source, val_source = open_splits(config.data, facts=plan.dataset, index=run.folder.data_index)
    loader = Loader(
        config.data, augment=augment, seed=seed, largest=_largest_batch(config, plan), in_memory=train_source.in_memory
    )

    heartbeat.stage(Stage.BUILD)
    ms.set_seed(seed)
    net = _network(config, plan)
    device.cast_network(net, config.precision)
    return Session(
        run=run,
        digest=run_digest(run.folder),
        rank=rank,
        heartbeat=heartbeat,
        journal=journal,
        workers=workers,
        train_source=train_source,
        val_source=val_source,
        loader=loader,
        net=net,
        normalise=images.Normalise(config.data, channels_last=net.channels_last),
    )


def _network(config: RunConfig, plan: LaunchPlan) -> mobilevit.MobileViT:
    """The network in the form of the plan, with random weights."""
    form = mobilevit.MobileViT
    if plan.kernels.isa:
        assert plan.threads is not None
        operators.open_library(Path(os.environ[KERNELS_VARIABLE]), threads=plan.threads)
        form = fused.MobileViT
    return form(config.model, num_classes=plan.num_classes)


def _largest_batch(config: RunConfig, plan: LaunchPlan) -> int:
    """Pixels of the largest batch, of any graph or of an evaluation."""
    batches = [(graph.images[0], graph.images[1]) for graph in plan.graphs if graph.images]
    return max(size * side**2 for size, side in (*batches, (config.eval_batch_size, config.data.image_size)))
