"""The workers of one machine as a group that shares memory, in which gradients are added up without sockets."""

import os
from collections.abc import Generator
from contextlib import contextmanager

import numpy as np

from mvit.models.kernels import operators
from mvit.process import memory_file
from mvit.worker.collectives import Workers

PATIENCE_S = 30.0
"""Longest wait for another worker, as long as MindSpore's collectives wait."""


class LostWorker(Exception):
    """Another worker did not come to the all-reduce."""


def join(workers: Workers, *, rank: int, size: int) -> None:
    """Share memory for vectors of at most `size` floats; every worker must call this. Raises `OSError`."""
    file = memory_file("mvit-all-reduce") if rank == 0 else -1
    if rank == 0:
        os.ftruncate(file, operators.group_bytes(workers.world_size, size))
    # Exact as float32: a process id has 22 bits.
    pid, number = map(int, workers.gather([np.array([os.getpid(), file], np.float32)])[0][0])
    if rank != 0:
        file = os.open(f"/proc/{pid}/fd/{number}", os.O_RDWR | os.O_CLOEXEC)
    operators.join_group(file, rank=rank, workers=workers.world_size, size=size, patience_s=PATIENCE_S)
    workers.sum(np.zeros(1, np.float32))  # all have it open
    os.close(file)


@contextmanager
def losses_named() -> Generator[None]:
    """Say which worker was missing where MindSpore says that an operator failed."""
    try:
        yield
    except RuntimeError as error:
        rank = operators.missing_worker()
        if rank is None:
            raise
        raise LostWorker(f"rank {rank} did not come to the all-reduce within {PATIENCE_S:.0f} s") from error
