"""AdamW in the graph; its rates are inputs, so that runs that differ in them share a graph."""

import mindspore as ms
from mindspore import nn, ops

from mvit.config import AdamWConfig


class AdamW(nn.Cell):
    """AdamW with bias correction (Loshchilov and Hutter, arXiv 1711.05101, algorithm 2), decay on every parameter.

    w <- w * (1 - lr * decay); m <- b1 m + (1 - b1) g; v <- b2 v + (1 - b2) g^2;
    w <- w - lr * (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps)

    `ops.Adam` adds its epsilon to sqrt(v) before the correction of v, so it is given eps * sqrt(1 - b2^t).
    """

    def __init__(self, parameters: list[ms.Parameter], config: AdamWConfig) -> None:
        super().__init__(auto_prefix=False)
        self.parameters = ms.ParameterTuple(parameters)
        self.moment1 = self.parameters.clone("adam_m", "zeros")
        self.moment2 = self.parameters.clone("adam_v", "zeros")
        self.beta1 = ms.Tensor(config.beta1, ms.float32)
        self.beta2 = ms.Tensor(config.beta2, ms.float32)
        self.eps = config.eps
        self.map = ops.HyperMap()

    def construct(self, gradients, lr, decay, beta1_power, beta2_power):
        eps = self.eps * ops.sqrt(1.0 - beta2_power)
        rates = (1.0 - lr * decay, beta1_power, beta2_power, lr, self.beta1, self.beta2, eps)
        return self.map(ops.partial(_adamw, rates), self.parameters, self.moment1, self.moment2, gradients)


_adam = ops.Adam()
_adamw = ops.MultitypeFuncGraph("adamw")


@_adamw.register("Tuple", "Tensor", "Tensor", "Tensor", "Tensor")
def _(rates, parameter, moment1, moment2, gradient):
    keep, beta1_power, beta2_power, lr, beta1, beta2, eps = rates
    ops.assign(parameter, parameter * keep)
    return _adam(parameter, moment1, moment2, beta1_power, beta2_power, lr, beta1, beta2, eps, gradient)


def powers(config: AdamWConfig, *, step: int) -> tuple[float, float]:
    """b1^t and b2^t of `step`, counted from 0 (t = step + 1)."""
    return config.beta1 ** (step + 1), config.beta2 ** (step + 1)
