"""What workers do together: every collective of MindSpore that is used, and nothing else, so that another can be."""

import mindspore as ms
import numpy as np
from mindspore import nn, ops
from mindspore.communication import get_rank, init


def join(world_size: int) -> None:
    """Meet the other workers; in msrun's scheduler process this never returns."""
    if world_size > 1:
        init()


def all_reduce() -> ops.AllReduce:
    """The operator that adds up a float32 tensor over all workers; it has the one type that CPU and Ascend share."""
    return ops.AllReduce(ops.ReduceOp.SUM)


class _Sum(nn.Cell):
    def __init__(self) -> None:
        super().__init__()
        self.all_reduce = all_reduce()

    def construct(self, x):
        return self.all_reduce(x)


class Workers:
    """What the workers do together, outside the training step."""

    def __init__(self, world_size: int) -> None:
        self.world_size = world_size
        self._sum = _Sum() if world_size > 1 else None

    def sum(self, vector: np.ndarray) -> np.ndarray:
        """The float32 vector added over all workers; every worker must call this."""
        if self._sum is None:
            return vector
        return self._sum(ms.Tensor(vector)).asnumpy()  # synchronises

    def gather(self, arrays: list[np.ndarray]) -> list[list[np.ndarray]]:
        """The float32 arrays of every worker, by rank; every worker must call this."""
        if self._sum is None:
            return [arrays]
        flat = np.concatenate([array.ravel() for array in arrays])
        table = np.zeros((self.world_size, flat.size), np.float32)
        table[get_rank()] = flat
        # A sum with zeros is exact, and the one collective that a CPU has for float32 of any size.
        rows = self.sum(table.ravel()).reshape(self.world_size, -1)
        ends = np.cumsum([array.size for array in arrays])[:-1]
        shapes = [array.shape for array in arrays]
        return [[p.reshape(s) for p, s in zip(np.split(row, ends), shapes, strict=True)] for row in rows]

    def average(self, parameters: list[ms.Parameter]) -> None:
        """Set each parameter to its mean over all workers, whose running statistics differ."""
        if self._sum is None:
            return
        flat = np.concatenate([parameter.asnumpy().ravel() for parameter in parameters])
        flat = self.sum(flat) / np.float32(self.world_size)
        pieces = np.split(flat, np.cumsum([parameter.size for parameter in parameters])[:-1])
        for parameter, piece in zip(parameters, pieces, strict=True):
            parameter.set_data(ms.Tensor(piece.reshape(parameter.shape)))
