"""What each worker loads for each step."""

import numpy as np
import pytest

from mvit.plan import BucketPlan
from mvit.worker.input.feed import Feed

STEPS, BATCH, SAMPLES = 5, 12, 64


class Plan:
    """The fields of a plan that a feed reads."""

    def __init__(self, *, world_size, accumulation, last_step=2 * STEPS):
        self.world_size, self.accumulation, self.last_step = world_size, accumulation, last_step
        self.steps_per_epoch = STEPS
        per_device = BATCH // (world_size * accumulation)
        self.buckets = (
            BucketPlan(
                image_size=32,
                global_batch_size=BATCH,
                per_device_batch_size=per_device,
                steps_per_epoch=STEPS,
            ),
        )

    class dataset:
        num_train = SAMPLES


def feed(rank=0, **plan) -> Feed:
    return Feed(Plan(**plan), rank=rank, seed=3, repeats=1, mix=None)  # pyright: ignore[reportArgumentType]


def loaded(feed, slices, epoch):
    return [part.indices for part in feed.micro_batches(slices, epoch=epoch)]


@pytest.mark.parametrize(("world_size", "accumulation"), [(1, 1), (2, 1), (1, 2), (2, 3)])
def test_every_topology_sees_the_same_global_batches(world_size, accumulation):
    whole = feed(world_size=1, accumulation=1)
    wanted = loaded(whole, whole.slices(2, after=STEPS), 2)
    shares = []
    for rank in range(world_size):
        one = feed(rank, world_size=world_size, accumulation=accumulation)
        parts = loaded(one, one.slices(2, after=STEPS), 2)
        assert len(parts) == STEPS * accumulation
        shares.append([np.concatenate(parts[k : k + accumulation]) for k in range(0, len(parts), accumulation)])
        assert len(one.draws(7, image_size=32)) == accumulation
    for step, batch in enumerate(wanted):
        assert (np.concatenate([share[step] for share in shares]) == batch).all()


def test_a_resumed_epoch_continues_where_it_stopped_and_the_last_may_be_cut():
    one = feed(world_size=1, accumulation=1, last_step=8)
    assert len(one.slices(1, after=0)) == STEPS
    assert one.slices(1, after=2) == one.slices(1, after=0)[2:]
    assert one.slices(1, after=STEPS) == []
    assert len(one.slices(2, after=STEPS)) == 3
    assert (one.end(1), one.end(2)) == (STEPS, 8)


def test_each_part_has_its_own_dropout_whichever_worker_takes_it():
    two = [feed(rank, world_size=2, accumulation=1).draws(4, image_size=32) for rank in (0, 1)]
    accumulated = feed(world_size=1, accumulation=2).draws(4, image_size=32)
    assert [key for draws in two for _, key in draws] == [key for _, key in accumulated]
    assert len({key for _, key in accumulated}) == 2
