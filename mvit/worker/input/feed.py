"""The feed: which images one worker loads for each training step, and how they are mixed."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from mvit.config import MixConfig
from mvit.plan import LaunchPlan
from mvit.worker.input import mix, sampler
from mvit.worker.input.loader import MicroBatch


@dataclass(frozen=True)
class Feed:
    """A function of plan, rank and seed: the same for a run that was resumed."""

    plan: LaunchPlan
    rank: int
    seed: int
    repeats: int
    """Views of an image in a row (repeated augmentation)."""
    mix: MixConfig | None

    @property
    def _my_parts(self) -> range:
        """The parts of a global batch that this worker takes, in order."""
        return range(self.rank * self.plan.accumulation, (self.rank + 1) * self.plan.accumulation)

    def slices(self, epoch: int, *, after: int) -> list[sampler.Slice]:
        """The steps of an epoch, counted from 1, that follow the first `after` steps of the run."""
        begins = (epoch - 1) * self.plan.steps_per_epoch
        slices = sampler.epoch_slices(self.plan.buckets, seed=self.seed, epoch=epoch)
        return slices[after - begins : self.end(epoch) - begins]

    def end(self, epoch: int) -> int:
        """The number of the last step of an epoch."""
        return min(epoch * self.plan.steps_per_epoch, self.plan.last_step)

    def micro_batches(self, slices: Sequence[sampler.Slice], *, epoch: int) -> Iterator[MicroBatch]:
        """What this worker loads for these steps, in order."""
        order = sampler.epoch_order(self.plan.dataset.num_train, seed=self.seed, epoch=epoch, repeats=self.repeats)
        num_slices = self.plan.world_size * self.plan.accumulation
        for slice_ in slices:
            bucket = self.plan.buckets[slice_.bucket]
            for part in self._my_parts:
                places = sampler.part_of(bucket.global_batch_size, start=slice_.start, num_slices=num_slices, part=part)
                yield MicroBatch(order.indices[places], order.views[places], bucket.image_size)

    def draws(self, step: int, *, image_size: int) -> list[tuple[np.ndarray, int]]:
        """For each micro-batch of a step, how its images are mixed, and the key of its dropout."""
        return [
            (
                mix.draw(self.mix, seed=self.seed, step=step, part=part, image_size=image_size),
                sampler.dropout_key(self.seed, step=step, part=part),
            )
            for part in self._my_parts
        ]
