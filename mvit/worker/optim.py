"""Optimizers in the graph, behind one interface.

`optimizer(gradients, lr, decay, apply)`: finite float32 gradients in the order of `optimizer.parameters`; learning rate
and weight decay, float32 scalars, as inputs, so that runs that differ in them share a graph. Where `apply` is 0, not 1,
nothing changes: every weight, moment and count keeps its bits (but -0.0 may become 0.0). It enters through scalars, a
rate of 0 and moments that keep all of themselves; the squares of gradients must be finite too.
"""

from collections.abc import Sequence

import mindspore as ms
from mindspore import nn, ops

from mvit.config import AdamWConfig, LambConfig, LionConfig, SgdConfig


def make_optimizer(
    parameters: list[ms.Parameter],
    config: AdamWConfig | SgdConfig | LionConfig | LambConfig,
    *,
    rate_factors: Sequence[float],
    decays: Sequence[bool],
) -> nn.Cell:
    """Each parameter has a factor on the learning rate, and decays or not: see `models.spec.groups`."""
    assert len(parameters) == len(rate_factors) == len(decays)
    rates = Rates(rate_factors, decays)
    match config:
        case AdamWConfig():
            return AdamW(parameters, config, rates)
        case SgdConfig():
            return Sgd(parameters, config, rates)
        case LionConfig():
            return Lion(parameters, config, rates)
        case LambConfig():
            return Lamb(parameters, config, rates)


class Rates(nn.Cell):
    """What all optimizers share: the count of applied updates, and the rate and decay of each parameter.

    Parameters that share factor and decay form a group; `of` has the group of each one.
    """

    def __init__(self, rate_factors: Sequence[float], decays: Sequence[bool]) -> None:
        super().__init__(auto_prefix=False)
        self.factors, self.decays = tuple(rate_factors), tuple(decays)
        pairs = list(zip(rate_factors, decays, strict=True))
        self.distinct = tuple(dict.fromkeys(pairs))
        self.of = tuple(self.distinct.index(pair) for pair in pairs)
        # A float32 counts exactly to 2^24 updates.
        self.step = ms.Parameter(ms.Tensor(0.0, ms.float32), name="optimizer_step", requires_grad=False)

    def construct(self, lr, decay, apply):
        """t, which counts this update from 1, and for each group (rate, decay, 1 - rate * decay, whether it decays).

        Scalars are computed here, for a group, because each operation of the functions below is compiled per tensor.
        """
        t = self.step + 1.0  # also where apply is 0, so that no bias correction divides by 0
        ops.assign(self.step, self.step + apply)
        groups = ()
        for factor, decays in self.distinct:
            rate = lr * apply if factor == 1.0 else lr * apply * factor
            groups = (*groups, (rate, decay, 1.0 - rate * decay, decays))
        return t, groups


class AdamW(nn.Cell):
    """AdamW with bias correction (Loshchilov and Hutter, arXiv 1711.05101, algorithm 2).

    w <- w * (1 - lr * decay); m <- b1 m + (1 - b1) g; v <- b2 v + (1 - b2) g^2;
    w <- w - lr * (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps)

    `ops.Adam` adds its epsilon to sqrt(v) before the correction of v, so it is given eps * sqrt(1 - b2^t).
    """

    def __init__(self, parameters: list[ms.Parameter], config: AdamWConfig, rates: Rates) -> None:
        super().__init__(auto_prefix=False)
        self.parameters = ms.ParameterTuple(parameters)
        self.moment1 = self.parameters.clone("adam_m", "zeros")
        self.moment2 = self.parameters.clone("adam_v", "zeros")
        self.moments = (self.moment1, self.moment2)
        self.beta1 = ms.Tensor(config.beta1, ms.float32)
        self.beta2 = ms.Tensor(config.beta2, ms.float32)
        self.eps = config.eps
        self.rates = rates
        self.map = ops.HyperMap()

    def construct(self, gradients, lr, decay, apply):
        t, rates = self.rates(lr, decay, apply)
        power1, power2 = ops.pow(self.beta1, t), ops.pow(self.beta2, t)
        eps = self.eps * ops.sqrt(1.0 - power2)
        beta1, beta2 = _if_applied(apply, self.beta1), _if_applied(apply, self.beta2)
        update = ops.partial(_adamw, rates, (power1, power2, beta1, beta2, eps))
        return self.map(update, self.rates.of, self.parameters, self.moment1, self.moment2, gradients)


class Sgd(nn.Cell):
    """SGD with momentum as PyTorch defines it, without dampening; the decay is part of the gradient.

    d = g + decay * w; u <- momentum * u + d; w <- w - lr * (d + momentum * u if nesterov else u)
    """

    def __init__(self, parameters: list[ms.Parameter], config: SgdConfig, rates: Rates) -> None:
        super().__init__(auto_prefix=False)
        self.parameters = ms.ParameterTuple(parameters)
        self.velocity = self.parameters.clone("momentum", "zeros")
        self.moments = (self.velocity,)
        self.momentum = ms.Tensor(config.momentum, ms.float32)
        self.nesterov = config.nesterov
        self.rates = rates
        self.map = ops.HyperMap()

    def construct(self, gradients, lr, decay, apply):
        _, rates = self.rates(lr, decay, apply)
        shared = (self.momentum, _if_applied(apply, self.momentum), apply, self.nesterov)
        update = ops.partial(_sgd, rates, shared)
        return self.map(update, self.rates.of, self.parameters, self.velocity, gradients)


class Lion(nn.Cell):
    """Lion (Chen et al., arXiv 2302.06675, algorithm 2), the decay decoupled.

    w <- w - lr * (sign(b1 m + (1 - b1) g) + decay * w); m <- b2 m + (1 - b2) g
    """

    def __init__(self, parameters: list[ms.Parameter], config: LionConfig, rates: Rates) -> None:
        super().__init__(auto_prefix=False)
        self.parameters = ms.ParameterTuple(parameters)
        self.momentum = self.parameters.clone("momentum", "zeros")
        self.moments = (self.momentum,)
        self.share1 = ms.Tensor(1.0 - config.beta1, ms.float32)
        self.share2 = 1.0 - config.beta2
        self.rates = rates
        self.map = ops.HyperMap()

    def construct(self, gradients, lr, decay, apply):
        _, rates = self.rates(lr, decay, apply)
        update = ops.partial(_lion, rates, (self.share1, self.share2 * apply))
        return self.map(update, self.rates.of, self.parameters, self.momentum, gradients)


class Lamb(nn.Cell):
    """LAMB (You et al., arXiv 1904.00962, algorithm 2), phi the identity.

    m and v as in AdamW; r = (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps) + decay * w; w <- w - lr * |w| / |r| * r

    The trust ratio |w| / |r| is 1 where either norm is 0. Parameters that do not decay have none: they move as in Adam,
    which is timm's always_adapt=False. A decay of 0, being an input, leaves the ratio, as in the paper (timm drops it).
    """

    def __init__(self, parameters: list[ms.Parameter], config: LambConfig, rates: Rates) -> None:
        super().__init__(auto_prefix=False)
        self.parameters = ms.ParameterTuple(parameters)
        self.moment1 = self.parameters.clone("lamb_m", "zeros")
        self.moment2 = self.parameters.clone("lamb_v", "zeros")
        self.moments = (self.moment1, self.moment2)
        self.beta1 = ms.Tensor(config.beta1, ms.float32)
        self.beta2 = ms.Tensor(config.beta2, ms.float32)
        self.share1, self.share2 = 1.0 - config.beta1, 1.0 - config.beta2
        self.eps = config.eps
        self.rates = rates
        self.map = ops.HyperMap()

    def construct(self, gradients, lr, decay, apply):
        t, rates = self.rates(lr, decay, apply)
        root2 = ops.sqrt(1.0 - ops.pow(self.beta2, t))
        correction = root2 / (1.0 - ops.pow(self.beta1, t))
        shared = (correction, self.share1 * apply, self.share2 * apply, self.eps * root2)
        update = ops.partial(_lamb, rates, shared)
        return self.map(update, self.rates.of, self.parameters, self.moment1, self.moment2, gradients)


def _if_applied(apply, beta):
    """1 where the update is dropped, so that a moment m <- 1 * m + 0 * g keeps its value."""
    return ops.select(apply > 0.5, beta, ops.ones_like(beta))


_adam = ops.Adam()
_apply_momentum = ops.ApplyMomentum()
_half_square_sum = ops.L2Loss()
_lerp = ops.Lerp()
_adamw = ops.MultitypeFuncGraph("adamw")
_sgd = ops.MultitypeFuncGraph("sgd")
_lion = ops.MultitypeFuncGraph("lion")
_lamb = ops.MultitypeFuncGraph("lamb")


@_adamw.register("Tuple", "Tuple", "Number", "Tensor", "Tensor", "Tensor", "Tensor")
def _(rates, shared, group, parameter, moment1, moment2, gradient):
    rate, _, keep, decays = rates[group]
    power1, power2, beta1, beta2, eps = shared
    if decays:
        ops.assign(parameter, parameter * keep)
    return _adam(parameter, moment1, moment2, power1, power2, rate, beta1, beta2, eps, gradient)


@_sgd.register("Tuple", "Tuple", "Number", "Tensor", "Tensor", "Tensor")
def _(rates, shared, group, parameter, velocity, gradient):
    rate, decay, _, decays = rates[group]
    momentum, kept, apply, nesterov = shared
    if decays:
        gradient = gradient + parameter * decay
    if not nesterov:
        return _apply_momentum(parameter, velocity, rate, gradient * apply, kept)
    # In two parts: MindSpore 2.10's CPU kernel takes use_nesterov and ignores it.
    moved = _apply_momentum(parameter, velocity, rate * momentum, gradient * apply, kept)
    return ops.depend(ops.assign_sub(parameter, gradient * rate), moved)


@_lion.register("Tuple", "Tuple", "Number", "Tensor", "Tensor", "Tensor")
def _(rates, shared, group, parameter, momentum, gradient):
    rate, decay, _, decays = rates[group]
    share1, share2 = shared
    step = ops.sign(_lerp(momentum, gradient, share1))
    if decays:
        step = step + parameter * decay
    ops.assign(momentum, _lerp(momentum, gradient, share2))
    return ops.assign_sub(parameter, step * rate)


@_lamb.register("Tuple", "Tuple", "Number", "Tensor", "Tensor", "Tensor", "Tensor")
def _(rates, shared, group, parameter, moment1, moment2, gradient):
    rate, decay, _, decays = rates[group]
    correction, share1, share2, eps = shared
    new1 = _lerp(moment1, gradient, share1)
    new2 = _lerp(moment2, ops.square(gradient), share2)
    step = new1 * correction / (ops.sqrt(new2) + eps)
    if decays:
        step = step + parameter * decay
        norm, step_norm = _norm(parameter), _norm(step)
        rate = rate * ops.select(norm * step_norm > 0.0, norm / step_norm, ops.ones_like(norm))
    ops.assign(moment1, new1)
    ops.assign(moment2, new2)
    return ops.assign_sub(parameter, step * rate)


def _norm(tensor):
    """Divided by the root of 2, which cancels in the ratio of two; one kernel less than square and sum."""
    return ops.sqrt(_half_square_sum(tensor))
