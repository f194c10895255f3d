"""The update on the fused kernels: what `step_graphs.Update` and `optim` do, as one operator over all parameters."""

import math
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import nn, ops

from mvit.config import AdamWConfig, LambConfig, LionConfig, OptimizerConfig, SgdConfig
from mvit.models.kernels import operators
from mvit.worker import collectives
from mvit.worker.step_graphs import Ema


def fused_constants(config: OptimizerConfig) -> tuple[float, ...] | None:
    """What the optimizer's operator takes behind the constants that all of them have; None if it has no operator."""
    match config:
        case AdamWConfig() | LambConfig():
            return config.beta1, config.beta2, config.eps
        case SgdConfig():
            return config.momentum, float(config.nesterov)
        case LionConfig():
            return config.beta1, config.beta2
        case _:
            return None


class FusedUpdate(nn.Cell):
    """All-reduce, clip, optimizer, on the parameters and moments of an optimizer's cell.

    As `step_graphs.Update` without a loss scale, which fp32 does not need: returns the step's loss sum, the gradient
    norm, and 1. With `distributed`, workers of one machine have joined a group (see `worker.group`); those of several
    do not share memory, and use MindSpore's collective.

    MindSpore does not see the parameters move: in the same graph, what reads them depends on the norm.
    """

    def __init__(
        self,
        optimizer: Any,
        *,
        kind: str,
        constants: tuple[float, ...],
        num_parts: int,
        distributed: bool,
        shares_memory: bool,
        clip_norm: float | None,
        clip_value: float | None,
    ) -> None:
        super().__init__(auto_prefix=False)
        # One flat tuple: what a cell holds in nested ones, a graph from the compile cache does not find again.
        self.tensors = ms.ParameterTuple(
            [tensor for part in (optimizer.parameters, *optimizer.moments) for tensor in part]
        )
        self.step = optimizer.rates.step
        self.distributed = distributed
        if distributed:
            self.all_reduce = operators.all_reduce() if shares_memory else collectives.all_reduce()
        self.flatten = operators.flatten()
        self.update = operators.update(kind)
        limits = (clip_norm or math.inf, clip_value or math.inf)
        self.constants = _vector((1.0 / num_parts, *limits, *constants))
        self.factors = _vector(optimizer.rates.factors)
        self.decays = _vector(map(float, optimizer.rates.decays))

    def construct(self, loss_sum, gradients, lr, decay):
        flat = self.flatten(loss_sum, *gradients)
        if self.distributed:
            flat = self.all_reduce(flat)
            loss_sum = ops.reshape(ops.slice(flat, (0,), (1,)), ())
        t = self.step + 1.0
        ops.assign(self.step, t)
        norm = self.update(flat, lr, decay, t, self.constants, self.factors, self.decays, *self.tensors)
        return loss_sum, ops.reshape(norm, ()), ops.ones((), ms.float32)


class FusedEma(Ema):
    """`Ema` on the fused kernels: after all that moves weights and running statistics unseen."""

    def __init__(self, net: nn.Cell, momentum: float) -> None:
        super().__init__(net, momentum)
        self.average = operators.average()

    def construct(self, applied, norm):
        return self.average(self.momentum * applied, norm, *self.averages, *self.parameters)


def _vector(values) -> ms.Tensor:
    return ms.Tensor(np.array(list(values), np.float32))
