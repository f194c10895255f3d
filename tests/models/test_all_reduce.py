"""The sum over workers that share memory, called as MindSpore calls it."""

import ctypes
import os
import time
from multiprocessing import get_context

import numpy as np
import pytest

from mvit.models.kernels import build

SIZES = (1, 15, 16, 17, 1000, 100_003)


def call(library, vector):
    """Return code and output of the operator."""
    out = np.full_like(vector, np.nan)
    pointers = (ctypes.c_void_p * 2)(vector.ctypes.data, out.ctypes.data)
    dims, shape = (ctypes.c_int * 2)(1, 1), (ctypes.c_int64 * 1)(vector.size)
    shapes = (ctypes.POINTER(ctypes.c_int64) * 2)(shape, shape)
    return library.mvit_all_reduce(2, pointers, dims, shapes, None, None, None), out


def opened(file, *, rank, workers, patience_s):
    library = ctypes.CDLL(str(build.library(build.this_cpu()[0])))
    largest = ctypes.c_long(max(SIZES))
    library.mvit_group_bytes.restype = ctypes.c_long
    os.ftruncate(file, library.mvit_group_bytes(workers, largest))
    assert library.mvit_join_group(file, rank, workers, largest, ctypes.c_double(patience_s)) == 0
    return library


def values(rank, number, size):
    return np.random.default_rng((rank, number)).normal(size=size).astype(np.float32)


def worker(file, rank, workers, rounds, sums):
    library = opened(file, rank=rank, workers=workers, patience_s=20.0)
    for number in range(rounds):
        size = SIZES[number % len(SIZES)]
        if (number + rank) % 7 == 0:
            time.sleep(0.002)
        code, out = call(library, values(rank, number, size))
        assert code == 0
        sums.put((rank, number, out.tobytes()))


@pytest.mark.parametrize("workers", [1, 2, 3, 5])
def test_every_worker_has_the_sum_in_the_order_of_the_ranks(workers):
    context, rounds = get_context("fork"), 60
    file, sums = os.memfd_create("test"), context.Queue()
    processes = [context.Process(target=worker, args=(file, r, workers, rounds, sums)) for r in range(workers)]
    for process in processes:
        process.start()
    seen = [sums.get(timeout=60) for _ in range(workers * rounds)]
    for process in processes:
        process.join()
        assert process.exitcode == 0
    for _, number, found in seen:
        size = SIZES[number % len(SIZES)]
        expected = values(0, number, size)
        for rank in range(1, workers):
            expected = expected + values(rank, number, size)
        assert found == expected.tobytes()


def test_who_does_not_come_is_named():
    library = opened(os.memfd_create("test"), rank=0, workers=2, patience_s=0.3)
    assert library.mvit_missing_worker() == -1
    began = time.monotonic()
    code, _ = call(library, values(0, 0, 16))
    assert code != 0
    assert 0.3 <= time.monotonic() - began < 10
    assert library.mvit_missing_worker() == 1
