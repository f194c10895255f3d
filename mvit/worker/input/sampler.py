"""Which samples each step of each worker sees; pure, and the same on any topology.

A global batch is a slice of the epoch's order. It is cut into `num_slices` = devices x micro-batches equal parts, and
worker r takes parts r*accumulation to (r+1)*accumulation - 1: two workers and two micro-batches see the same parts.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mvit.plan import BucketPlan


@dataclass(frozen=True)
class Order:
    """The samples of an epoch in order: int64 (n,), and which view of a sample each one is (repeated augmentation)."""

    indices: np.ndarray
    views: np.ndarray


@dataclass(frozen=True)
class Slice:
    """One step: its bucket, and where its global batch begins in the epoch's order."""

    bucket: int
    start: int


def epoch_order(num_samples: int, *, seed: int, epoch: int, repeats: int = 1) -> Order:
    """A permutation of the samples, a function of (seed, epoch).

    With repeats, each sample stands there so many times in a row, and the epoch ends after `num_samples` views.
    """
    chosen = generator(seed, epoch, 0, stream=0).permutation(num_samples)[: -(-num_samples // repeats)]
    indices = np.repeat(chosen, repeats)[:num_samples]
    return Order(indices, np.arange(num_samples) % repeats)


def epoch_slices(buckets: Sequence[BucketPlan], *, seed: int, epoch: int) -> list[Slice]:
    """The steps of an epoch: as many of each bucket as planned, shuffled by (seed, epoch); the same on all ranks."""
    of_steps = np.repeat(np.arange(len(buckets)), [bucket.steps_per_epoch for bucket in buckets])
    of_steps = generator(seed, epoch, 0, stream=5).permutation(of_steps)
    ends = np.cumsum([buckets[bucket].global_batch_size for bucket in of_steps])
    starts = ends - [buckets[bucket].global_batch_size for bucket in of_steps]
    return [Slice(int(bucket), int(start)) for bucket, start in zip(of_steps, starts, strict=True)]


def generator(seed: int, epoch: int, index: int, *, stream: int) -> np.random.Generator:
    """A random stream of its own for each (seed, epoch, index, stream): counter-based, so order does not matter."""
    key = np.array([(seed << 32) | epoch, (stream << 48) | index], np.uint64)
    return np.random.Generator(np.random.Philox(key=key))


def view_generator(seed: int, *, epoch: int, index: int, view: int) -> np.random.Generator:
    """The stream that augments one view of one sample; no dataset has 2^40 samples."""
    return generator(seed, epoch, (view << 40) | index, stream=3)


def part_of(size: int, *, start: int, num_slices: int, part: int) -> slice:
    """The places, in the epoch's order, of part `part` of the global batch of `size` samples that begins at `start`."""
    share = size // num_slices
    return slice(start + part * share, start + (part + 1) * share)


def dropout_key(seed: int, *, step: int, part: int) -> int:
    """The int32 that selects the dropout masks of one part of one step."""
    return int(np.random.SeedSequence((seed, step, part)).generate_state(1)[0].astype(np.int32))


def shard(num_samples: int, *, rank: int, world_size: int) -> np.ndarray:
    """The samples that worker `rank` evaluates: each sample has one worker, no padding."""
    return np.arange(rank, num_samples, world_size)
