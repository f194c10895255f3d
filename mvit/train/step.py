"""The training step as graphs: one for a whole step, or two when gradients are accumulated.

Rates, decay and the dropout key are inputs. Losses are returned as sums, divided once after the reduction.

Cells around the network have `auto_prefix=False`: parameters keep the names they have in the network, which are those
of checkpoints.
"""

import mindspore as ms
from mindspore import nn, ops

from mvit.train.optim import AdamW


class SmoothedLoss(nn.Cell):
    """Sum over the batch of the cross entropy with label smoothing: logits (B, K), labels (B,) -> scalar.

    Target: 1 - s on the label plus s / K on each class (Szegedy et al., arXiv 1512.00567, section 7).
    """

    def __init__(self, smoothing: float) -> None:
        super().__init__()
        self.smoothing = smoothing

    def construct(self, logits, labels):
        log_p = ops.log_softmax(logits, -1)
        of_label = ops.gather_elements(log_p, 1, ops.expand_dims(labels, 1))
        sum_label, sum_uniform = ops.reduce_sum(of_label), ops.reduce_sum(ops.mean(log_p, -1))
        return -(1.0 - self.smoothing) * sum_label - self.smoothing * sum_uniform


class Gradients(nn.Cell):
    """Forward and backward of one micro-batch: the gradients of the mean loss, and the sum of the losses."""

    def __init__(self, net: nn.Cell, *, smoothing: float, loss_scale: float) -> None:
        super().__init__(auto_prefix=False)
        self.net = net
        self.loss = SmoothedLoss(smoothing)
        self.parameters = ms.ParameterTuple(net.trainable_params())
        self.loss_scale = loss_scale
        self.differentiate = ops.value_and_grad(self.forward, None, self.parameters)

    def forward(self, images, labels, key):
        return self.loss(self.net(images, key), labels) * (self.loss_scale / images.shape[0])

    def construct(self, images, labels, key):
        loss, gradients = self.differentiate(images, labels, key)
        return loss * (images.shape[0] / self.loss_scale), gradients


class Update(nn.Cell):
    """All-reduce, clip, AdamW. Sums over all micro-batches and devices go in, the step's loss sum and norm come out.

    The loss rides on the gradients' one flat buffer: one collective a step, of the type CPU and Ascend both have.
    """

    def __init__(
        self, optimizer: AdamW, *, num_parts: int, clip_norm: float | None, loss_scale: float, distributed: bool
    ) -> None:
        super().__init__(auto_prefix=False)
        self.optimizer = optimizer
        self.scale = 1.0 / (num_parts * loss_scale)
        self.clip_norm = clip_norm
        self.distributed = distributed
        self.map = ops.HyperMap()  # a Python loop over hundreds of tensors exceeds the compiler's call depth
        if distributed:
            sizes = [parameter.size for parameter in optimizer.parameters]
            self.offsets = tuple(1 + sum(sizes[:index]) for index in range(len(sizes)))
            self.concat = ops.Concat()
            self.all_reduce = ops.AllReduce(ops.ReduceOp.SUM)

    def construct(self, loss_sum, gradients, lr, decay, beta1_power, beta2_power):
        if self.distributed:
            flat = self.concat((ops.reshape(loss_sum, (1,)),) + self.map(_flatten, gradients))  # noqa: RUF005 (graph mode)
            flat = self.all_reduce(flat)
            loss_sum = ops.reshape(ops.slice(flat, (0,), (1,)), ())
            gradients = self.map(ops.partial(_piece, flat), self.offsets, gradients)
        norm = ops.sqrt(ops.addn(self.map(_sum_of_squares, gradients))) * self.scale
        factor = ops.ones_like(norm) * self.scale
        if self.clip_norm is not None:
            factor = factor * ops.minimum(self.clip_norm / (norm + 1e-6), ops.ones_like(norm))
        if self.clip_norm is not None or self.scale != 1.0:
            gradients = self.map(ops.partial(_multiply, factor), gradients)
        self.optimizer(gradients, lr, decay, beta1_power, beta2_power)
        return loss_sum, norm


_flatten = ops.MultitypeFuncGraph("flatten")
_piece = ops.MultitypeFuncGraph("piece")
_sum_of_squares = ops.MultitypeFuncGraph("sum_of_squares")
_multiply = ops.MultitypeFuncGraph("multiply")
_add_to = ops.MultitypeFuncGraph("add_to")
_empty = ops.MultitypeFuncGraph("empty")


@_flatten.register("Tensor")
def _(tensor):
    return ops.reshape(tensor, (-1,))


@_piece.register("Tensor", "Number", "Tensor")
def _(flat, offset, like):
    return ops.reshape(ops.slice(flat, (offset,), (like.size,)), like.shape)


@_sum_of_squares.register("Tensor")
def _(tensor):
    return ops.reduce_sum(ops.square(tensor))


@_multiply.register("Tensor", "Tensor")
def _(factor, tensor):
    return tensor * factor


@_add_to.register("Tensor", "Tensor")
def _(total, tensor):
    return ops.assign_add(total, tensor)


@_empty.register("Tensor")
def _(total):
    return ops.assign(total, ops.zeros_like(total))


class TrainStep(nn.Cell):
    """One step of one micro-batch, in one graph."""

    def __init__(self, gradients: Gradients, update: Update) -> None:
        super().__init__(auto_prefix=False)
        self.gradients = gradients
        self.update = update

    def construct(self, images, labels, key, lr, decay, beta1_power, beta2_power):
        loss_sum, gradients = self.gradients(images, labels, key)
        return self.update(loss_sum, gradients, lr, decay, beta1_power, beta2_power)


class Accumulate(nn.Cell):
    """Adds the gradients of one micro-batch to buffers."""

    def __init__(self, gradients: Gradients) -> None:
        super().__init__(auto_prefix=False)
        self.gradients = gradients
        self.sums = gradients.parameters.clone("accumulated", "zeros")
        self.loss_sum = ms.Parameter(ms.Tensor(0.0, ms.float32), name="accumulated_loss", requires_grad=False)
        self.map = ops.HyperMap()

    def construct(self, images, labels, key):
        loss_sum, gradients = self.gradients(images, labels, key)
        self.map(_add_to, self.sums, gradients)
        ops.assign_add(self.loss_sum, loss_sum)
        return loss_sum


class ApplyAccumulated(nn.Cell):
    """The update from the buffers, which are emptied."""

    def __init__(self, accumulate: Accumulate, update: Update) -> None:
        super().__init__(auto_prefix=False)
        self.sums, self.loss_sum = accumulate.sums, accumulate.loss_sum
        self.update = update
        self.map = ops.HyperMap()

    def construct(self, lr, decay, beta1_power, beta2_power):
        # The buffers are emptied below: what is returned must be a copy.
        loss_sum, norm = self.update(self.loss_sum * 1.0, self.sums, lr, decay, beta1_power, beta2_power)
        loss_sum = ops.depend(loss_sum, self.map(_empty, self.sums))
        return ops.depend(loss_sum, ops.assign(self.loss_sum, ops.zeros_like(self.loss_sum))), norm
