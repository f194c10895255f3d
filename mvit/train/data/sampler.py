"""Which samples each step of each worker sees; pure, and the same on any topology.

A global batch is a slice of the epoch's order. It is cut into `num_slices` = devices x micro-batches equal parts, and
worker r takes parts r*accumulation to (r+1)*accumulation - 1: two workers and two micro-batches see the same parts.
"""

import numpy as np


def epoch_order(num_samples: int, *, seed: int, epoch: int) -> np.ndarray:
    """A permutation of the samples: int64 (num_samples,), a function of (seed, epoch)."""
    return generator(seed, epoch, 0, stream=0).permutation(num_samples)


def generator(seed: int, epoch: int, index: int, *, stream: int) -> np.random.Generator:
    """A random stream of its own for each (seed, epoch, index, stream): counter-based, so order does not matter."""
    key = np.array([(seed << 32) | epoch, (stream << 48) | index], np.uint64)
    return np.random.Generator(np.random.Philox(key=key))


def train_indices(order: np.ndarray, *, step: int, global_batch_size: int, num_slices: int, part: int) -> np.ndarray:
    """Samples of part `part` of step `step` of the epoch: int64 (global_batch_size / num_slices,)."""
    size = global_batch_size // num_slices
    start = step * global_batch_size + part * size
    return order[start : start + size]


def dropout_key(seed: int, *, step: int, part: int) -> int:
    """The int32 that selects the dropout masks of one part of one step."""
    return int(np.random.SeedSequence((seed, step, part)).generate_state(1)[0].astype(np.int32))


def shard(num_samples: int, *, rank: int, world_size: int) -> np.ndarray:
    """The samples that worker `rank` evaluates: each sample has one worker, no padding."""
    return np.arange(rank, num_samples, world_size)
