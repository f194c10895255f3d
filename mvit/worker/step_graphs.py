"""The training step as graphs: one for a whole step, or two when gradients are accumulated.

Rates, decay, the dropout key and the mixing of images are inputs. Losses are returned as sums, divided once after the
reduction.

Cells around the network have `auto_prefix=False`: parameters keep the names they have in the network, which are those
of checkpoints.
"""

from typing import Any

import mindspore as ms
from mindspore import nn, ops

from mvit.config import DynamicLossScale, FixedLossScale
from mvit.worker import collectives
from mvit.worker.entry_cell import EntryCell
from mvit.worker.images import Mix

LARGEST_SCALE = 2.0**60


class SmoothedLoss(nn.Cell):
    """Sum over the batch of the cross entropy with label smoothing: logits (B, K), labels (B,) -> scalar.

    Target: 1 - s on the label plus s / K on each class (Szegedy et al., arXiv 1512.00567, section 7). Where batches are
    mixed, the label gets the share `weight` of 1 - s, and the label of the reversed batch the rest.
    """

    def __init__(self, smoothing: float, *, mixed: bool) -> None:
        super().__init__(auto_prefix=False)
        self.smoothing = smoothing
        self.mixed = mixed
        self.backwards = ops.ReverseV2(axis=[0])

    def construct(self, logits, labels, weight):
        log_p = ops.log_softmax(logits, -1)
        sum_label = ops.reduce_sum(ops.gather_elements(log_p, 1, ops.expand_dims(labels, 1)))
        if self.mixed:
            partners = ops.expand_dims(self.backwards(labels), 1)
            sum_label = weight * sum_label + (1.0 - weight) * ops.reduce_sum(ops.gather_elements(log_p, 1, partners))
        sum_uniform = ops.reduce_sum(ops.mean(log_p, -1))
        return -(1.0 - self.smoothing) * sum_label - self.smoothing * sum_uniform


class Scale(nn.Cell):
    """The factor on the loss that keeps float16 gradients in range, and the number of updates that it dropped.

    Dynamic as in Micikevicius et al. (arXiv 1710.03740, section 3.2): divided by `factor` at an overflow, multiplied by
    it after `growth_steps` updates in a row without one.
    """

    def __init__(self, config: FixedLossScale | DynamicLossScale) -> None:
        super().__init__(auto_prefix=False)
        self.dynamic = isinstance(config, DynamicLossScale)
        initial = config.initial if isinstance(config, DynamicLossScale) else config.value
        self.factor = config.factor if isinstance(config, DynamicLossScale) else 1.0
        self.growth_steps = config.growth_steps if isinstance(config, DynamicLossScale) else 1
        self.value = _scalar("loss_scale", initial)
        self.good_steps = _scalar("loss_scale_good_steps", 0.0)
        self.dropped = _scalar("dropped_updates", 0.0)
        self.dropped_in_a_row = _scalar("dropped_updates_in_a_row", 0.0)

    def construct(self, finite):
        """Count an update: finite is 1, or 0 where its gradients overflowed."""
        good = (self.good_steps + 1.0) * finite
        if self.dynamic:
            grows = ops.cast(good >= self.growth_steps, ms.float32)
            factor = finite * (1.0 + grows * (self.factor - 1.0)) + (1.0 - finite) / self.factor
            ops.assign(self.value, ops.clamp(self.value * factor, 1.0, LARGEST_SCALE))
            good = good * (1.0 - grows)
        ops.assign(self.good_steps, good)
        ops.assign(self.dropped, self.dropped + 1.0 - finite)
        return ops.assign(self.dropped_in_a_row, (self.dropped_in_a_row + 1.0) * (1.0 - finite))


def _scalar(name: str, value: float) -> ms.Parameter:
    return ms.Parameter(ms.Tensor(value, ms.float32), name=name, requires_grad=False)


class Gradients(nn.Cell):
    """Forward and backward of one micro-batch: the gradients of the mean loss, and the sum of the losses.

    Images are (B, H, W, 3) uint8, labels (B,) int32, mix (6,) float32, key an int32 scalar.
    """

    def __init__(
        self,
        net: nn.Cell,
        *,
        normalise: nn.Cell,
        smoothing: float,
        mix: Mix | None = None,
        scale: Scale | None = None,
    ) -> None:
        super().__init__(auto_prefix=False)
        self.net = net
        self.normalise = normalise
        self.mix = mix
        self.loss = SmoothedLoss(smoothing, mixed=mix is not None)
        self.parameters = ms.ParameterTuple(net.trainable_params())
        self.scale = scale.value if scale else None
        self.value_and_grad = ops.value_and_grad(self.forward, None, self.parameters)

    def zeros(self) -> ms.ParameterTuple:
        """What gradients can be added to."""
        return self.parameters.clone("accumulated", "zeros")

    def differentiate(self, images, labels, weight, key, factor):
        return self.value_and_grad(images, labels, weight, key, factor)

    def forward(self, images, labels, weight, key, factor):
        return self.loss(self.net(images, key), labels, weight) * factor

    def construct(self, images, labels, mix, key):
        images = self.normalise(images)
        if self.mix is not None:
            images = self.mix(images, mix)
        factor = ops.ones((), ms.float32) / images.shape[0]
        if self.scale is not None:
            factor = factor * self.scale
        loss, gradients = self.differentiate(images, labels, mix[5], key, factor)
        return loss / factor, gradients


class Update(nn.Cell):
    """All-reduce, check, clip, optimizer. Sums over all micro-batches and devices go in.

    Returns the step's loss sum, the gradient norm, and 1, or 0 where an overflow dropped the update: the reduced
    gradients are the same on every device, so all of them drop it.

    The loss travels in the flat buffer of the gradients: one collective a step, of a type that CPU and Ascend share.
    """

    def __init__(
        self,
        optimizer: Any,
        *,
        num_parts: int,
        distributed: bool,
        clip_norm: float | None = None,
        clip_value: float | None = None,
        scale: Scale | None = None,
    ) -> None:
        super().__init__(auto_prefix=False)
        self.optimizer = optimizer
        self.part = 1.0 / num_parts
        self.clip_norm, self.clip_value = clip_norm, clip_value
        self.scale = scale
        self.distributed = distributed
        self.map = ops.HyperMap()  # a Python loop over hundreds of tensors exceeds the compiler's call depth
        if distributed:
            sizes = [parameter.size for parameter in optimizer.parameters]
            self.offsets = tuple(1 + sum(sizes[:index]) for index in range(len(sizes)))
            self.concat = ops.Concat()
            self.all_reduce = collectives.all_reduce()

    def construct(self, loss_sum, gradients, lr, decay):
        if self.distributed:
            flat = self.concat((ops.reshape(loss_sum, (1,)),) + self.map(_flatten, gradients))  # noqa: RUF005 (graph mode)
            flat = self.all_reduce(flat)
            loss_sum = ops.reshape(ops.slice(flat, (0,), (1,)), ())
            gradients = self.map(ops.partial(piece, flat), self.offsets, gradients)
        norm = ops.sqrt(ops.addn(self.map(_sum_of_squares, gradients)))
        factor = ops.ones_like(norm) * self.part
        if self.scale is not None:
            factor = factor / self.scale.value
        finite = ops.cast(ops.isfinite(norm), ms.float32)
        norm = norm * factor
        if self.clip_norm is not None:
            factor = factor * ops.minimum(self.clip_norm / (norm + 1e-6), ops.ones_like(norm))
        if self.scale is not None:
            gradients = self.map(ops.partial(_finite_or_zero, finite, factor), gradients)
        elif self.clip_norm is not None or self.part != 1.0:
            gradients = self.map(ops.partial(_multiply, factor), gradients)
        if self.clip_value is not None:
            gradients = self.map(ops.partial(_clamp, self.clip_value), gradients)
        applied = finite if self.scale is not None else ops.ones_like(finite)
        self.optimizer(gradients, lr, decay, applied)
        if self.scale is not None:
            self.scale(finite)
        return loss_sum, norm, applied


_flatten = ops.MultitypeFuncGraph("flatten")
piece = ops.MultitypeFuncGraph("piece")
_sum_of_squares = ops.MultitypeFuncGraph("sum_of_squares")
_multiply = ops.MultitypeFuncGraph("multiply")
_finite_or_zero = ops.MultitypeFuncGraph("finite_or_zero")
_clamp = ops.MultitypeFuncGraph("clamp")
_add_to = ops.MultitypeFuncGraph("add_to")
_empty = ops.MultitypeFuncGraph("empty")
_approach = ops.MultitypeFuncGraph("approach")


@_flatten.register("Tensor")
def _(tensor):
    return ops.reshape(tensor, (-1,))


@piece.register("Tensor", "Number", "Tensor")
def _(flat, offset, like):
    return ops.reshape(ops.slice(flat, (offset,), (like.size,)), like.shape)


@_sum_of_squares.register("Tensor")
def _(tensor):
    return ops.reduce_sum(ops.square(tensor))


@_multiply.register("Tensor", "Tensor")
def _(factor, tensor):
    return tensor * factor


@_finite_or_zero.register("Tensor", "Tensor", "Tensor")
def _(finite, factor, tensor):
    return ops.select(finite > 0.5, tensor * factor, ops.zeros_like(tensor))


@_clamp.register("Number", "Tensor")
def _(limit, tensor):
    return ops.clamp(tensor, -limit, limit)


@_add_to.register("Tensor", "Tensor")
def _(total, tensor):
    return ops.assign_add(total, tensor)


@_empty.register("Tensor")
def _(total):
    return ops.assign(total, ops.zeros_like(total))


@_approach.register("Tensor", "Tensor", "Tensor")
def _(momentum, average, parameter):
    return ops.assign(average, average + momentum * (parameter - average))


class Ema(nn.Cell):
    """Exponential moving average of weights and running statistics, as cvnets keeps it: no warm-up, no correction.

    average <- (1 - momentum) * average + momentum * weights; nothing changes where the update was dropped.
    """

    def __init__(self, net: nn.Cell, momentum: float) -> None:
        super().__init__(auto_prefix=False)
        self.parameters = ms.ParameterTuple(list(net.get_parameters()))
        self.averages = self.parameters.clone("ema", "same")
        for average in self.averages:
            average.requires_grad = False
        self.momentum = momentum
        self.map = ops.HyperMap()

    def construct(self, applied, norm):
        """Move the averages after the update whose results these are; returns what depends on that."""
        return self.map(ops.partial(_approach, self.momentum * applied), self.averages, self.parameters)


class TrainStep(EntryCell):
    """A whole step of one micro-batch, in one graph."""

    def __init__(self, gradients: Gradients, update: nn.Cell, ema: Ema | None) -> None:
        super().__init__()
        self.gradients, self.update, self.ema = gradients, update, ema

    def construct(self, images, labels, mix, key, lr, decay):
        loss_sum, gradients = self.gradients(images, labels, mix, key)
        loss_sum, norm, applied = self.update(loss_sum, gradients, lr, decay)
        if self.ema is not None:
            norm = ops.depend(norm, self.ema(applied, norm))
        return loss_sum, norm


class Accumulate(EntryCell):
    """Adds the gradients of one micro-batch to buffers."""

    def __init__(self, gradients: Gradients) -> None:
        super().__init__()
        self.gradients = gradients
        self.sums = gradients.zeros()
        self.loss_sum = _scalar("accumulated_loss", 0.0)
        self.map = ops.HyperMap()

    def construct(self, images, labels, mix, key):
        loss_sum, gradients = self.gradients(images, labels, mix, key)
        self.map(_add_to, self.sums, gradients)
        ops.assign_add(self.loss_sum, loss_sum)
        return loss_sum


class ApplyAccumulated(EntryCell):
    """The update from the buffers, which are then emptied."""

    def __init__(self, accumulate: Accumulate, update: nn.Cell, ema: Ema | None) -> None:
        super().__init__()
        self.sums, self.loss_sum = accumulate.sums, accumulate.loss_sum
        self.update, self.ema = update, ema
        self.map = ops.HyperMap()

    def construct(self, lr, decay):
        # The buffers are emptied below: what is returned must be a copy.
        loss_sum, norm, applied = self.update(self.loss_sum * 1.0, self.sums, lr, decay)
        if self.ema is not None:
            norm = ops.depend(norm, self.ema(applied, norm))
        loss_sum = ops.depend(loss_sum, self.map(_empty, self.sums))
        return ops.depend(loss_sum, ops.assign(self.loss_sum, ops.zeros_like(self.loss_sum))), norm
