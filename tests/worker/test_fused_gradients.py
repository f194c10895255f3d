"""The written-out backward pass of the fused network against what MindSpore derives from the plain one."""

import numpy as np
import pytest

from mvit.models.kernels import build
from tests.conftest import TINY
from tests.models.test_kernels import fill

pytestmark = pytest.mark.mindspore


def gradients_of(ms, config, *, fused, patterns, split=True):
    """Loss sum, gradients and trained parameters; without `split`, a gradient may be of several parameters."""
    from mvit.models import mobilevit
    from mvit.models.kernels import network, operators
    from mvit.worker.device import freeze
    from mvit.worker.fused_gradients import FusedGradients
    from mvit.worker.images import Normalise
    from mvit.worker.step_graphs import Gradients

    operators.open_library(build.library(build.this_cpu()[0]), threads=2)
    net = (network if fused else mobilevit).MobileViT(config.model, num_classes=5)
    fill(ms, net)
    freeze(net, patterns)
    arguments = {"normalise": Normalise(config.data, channels_last=fused), "smoothing": 0.1}
    cell = FusedGradients(net, split=split, **arguments) if fused else Gradients(net, **arguments)
    cell.set_train(True)
    images = np.random.default_rng(4).integers(0, 256, (4, 45, 45, 3)).astype(np.uint8)
    labels = ms.Tensor(np.array([0, 1, 2, 3], np.int32))
    mix = ms.Tensor(np.array([0, 0, 0, 0, 0, 1], np.float32))
    loss, gradients = cell(ms.Tensor(images), labels, mix, ms.Tensor(7, ms.int32))
    return float(loss.asnumpy()), [gradient.asnumpy() for gradient in gradients], net.trainable_params()


@pytest.mark.parametrize(
    "patterns",
    [
        pytest.param((), id="all"),
        pytest.param(("stem.*", "stages.0.*", "*.project.norm.*", "*.query.weight", "head.bias"), id="some"),
    ],
)
def test_the_gradients_are_those_of_the_plain_network(mindspore, configured, patterns):
    config = configured(*TINY, "data=synthetic")
    loss, expected, trained = gradients_of(mindspore, config, fused=False, patterns=patterns)
    fused_loss, gradients, _ = gradients_of(mindspore, config, fused=True, patterns=patterns)
    assert fused_loss == pytest.approx(loss, rel=1e-5)
    largest = np.linalg.norm(flat(expected))
    for one, other, parameter in zip(gradients, expected, trained, strict=True):
        assert one.shape == parameter.shape
        limit = 1e-4 * max(np.linalg.norm(other), 0.01 * largest)
        assert np.linalg.norm(one - other) <= limit, parameter.name
    if not patterns:
        _, whole, _ = gradients_of(mindspore, config, fused=True, split=False, patterns=patterns)
        assert len(whole) < len(gradients)
        np.testing.assert_array_equal(flat(whole), flat(gradients))


def flat(gradients):
    return np.concatenate([gradient.ravel() for gradient in gradients])
