"""Forward and backward on the fused kernels, whose backward pass is written out."""

from typing import Any

import mindspore as ms
import numpy as np
from mindspore import ops

from mvit.models.kernels import operators
from mvit.models.kernels.network import MobileViT
from mvit.worker.step_graphs import Gradients, piece


class FusedGradients(Gradients):
    """As `Gradients`, of a network on the fused kernels. MindSpore differentiates the loss alone.

    Gradients come in pieces, each of some parameters. With `split`, and where a piece has parameters that are not
    trained, there is one for each parameter.
    """

    def __init__(self, net: MobileViT, *, split: bool, **arguments: Any) -> None:
        super().__init__(net, **arguments)
        self.gradient_of_loss = ops.value_and_grad(self.loss_of_logits, 0)
        differentiated = [parameter for part in net.differentiated() for parameter in part]
        self.split = split or [p.name for p in differentiated] != [p.name for p in self.parameters]
        if self.split:
            starts = np.cumsum([1, *(parameter.size for parameter in differentiated[:-1])])  # behind the loss
            places = {p.name: int(start) for p, start in zip(differentiated, starts, strict=True)}
            self.offsets = tuple(places[parameter.name] for parameter in self.parameters)
            self.flatten = operators.flatten()
            self.map = ops.HyperMap()

    def zeros(self) -> ms.ParameterTuple:
        if self.split:
            return super().zeros()
        parts = self.net.differentiated()
        shapes = [part[0].shape if len(part) == 1 else (sum(p.size for p in part),) for part in parts]
        zeros = [ms.Tensor(np.zeros(shape, np.float32)) for shape in shapes]
        return ms.ParameterTuple([ms.Parameter(zero, name=f"accumulated.{i}") for i, zero in enumerate(zeros)])

    def loss_of_logits(self, logits, labels, weight, factor):
        return self.loss(logits, labels, weight) * factor

    def differentiate(self, images, labels, weight, key, factor):
        logits, kept = self.net(images, key)
        loss, dlogits = self.gradient_of_loss(logits, labels, weight, factor)
        pieces = self.net.backward(kept, dlogits)
        if not self.split:
            return loss, pieces
        return loss, self.map(ops.partial(piece, self.flatten(loss, *pieces)), self.offsets, self.parameters)
