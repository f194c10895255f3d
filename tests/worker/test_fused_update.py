"""The fused update against the plain one: the same weights, moments and norms, step after step."""

from functools import partial
from itertools import repeat

import numpy as np
import pytest

from mvit.models.kernels import build
from tests.conftest import TINY
from tests.worker.test_optim import CONFIGS

pytestmark = pytest.mark.mindspore

SHAPES = {"conv.weight": (7, 3, 3, 3), "norm.gamma": (7,), "fc.weight": (40, 33), "one": (1,), "zero": (300, 17)}
FACTORS = (1.0, 0.5, 1.0, 0.25, 1.0)
DECAYS = (True, False, True, False, True)


def run(ms, config, *, fused, gradients, clip_norm, clip_value):
    """What five updates leave: parameters and moments, then the norms."""
    from mindspore import nn

    from mvit.worker.fused_update import FusedUpdate, fused_constants
    from mvit.worker.optim import make_optimizer
    from mvit.worker.step_graphs import Update

    class Graph(nn.Cell):
        """Gradients one by one: a tuple of tensors from outside counts as a constant of the graph."""

        def __init__(self, update):
            super().__init__(auto_prefix=False)
            self.update = update

        def construct(self, loss, lr, decay, *gradients):
            return self.update(loss, gradients, lr, decay)

    rng = np.random.default_rng(3)
    parameters = [
        ms.Parameter(ms.Tensor(rng.normal(size=shape).astype(np.float32) * (name != "zero")), name=name)
        for name, shape in SHAPES.items()
    ]
    optimizer = make_optimizer(parameters, config, rate_factors=FACTORS, decays=DECAYS)
    limits = {"num_parts": 2, "distributed": False, "clip_norm": clip_norm, "clip_value": clip_value}
    constants = fused_constants(config)
    assert constants is not None
    update = (
        FusedUpdate(optimizer, kind=config.kind, constants=constants, shares_memory=True, **limits)
        if fused
        else Update(optimizer, **limits)
    )
    graph = Graph(update)
    norms = []
    for step, of_step in enumerate(gradients):
        rates = (ms.Tensor(0.01 * (step + 1), ms.float32), ms.Tensor(0.1, ms.float32))
        _, norm, applied = graph(ms.Tensor(1.0, ms.float32), *rates, *map(ms.Tensor, of_step))
        assert float(applied.asnumpy()) == 1.0
        norms.append(float(norm.asnumpy()))
    return {p.name: p.asnumpy().copy() for p in optimizer.get_parameters()}, norms


@pytest.fixture(params=[1, 2], ids=["one-thread", "two-threads"])
def kernels(request):
    from mvit.models.kernels import operators

    operators.open_library(build.library(build.this_cpu()[0]), threads=request.param)


@pytest.mark.parametrize(("clip_norm", "clip_value"), [(None, None), (1.0, 0.02)], ids=["free", "clipped"])
@pytest.mark.parametrize("kind", CONFIGS)
def test_the_fused_update_moves_weights_and_moments_as_the_plain_one_does(
    mindspore, kernels, kind, clip_norm, clip_value
):
    rng = np.random.default_rng(5)
    gradients = [[rng.normal(size=shape).astype(np.float32) for shape in SHAPES.values()] for _ in range(5)]
    limits = {"gradients": gradients, "clip_norm": clip_norm, "clip_value": clip_value}
    plain, plain_norms = run(mindspore, CONFIGS[kind], fused=False, **limits)
    fused, fused_norms = run(mindspore, CONFIGS[kind], fused=True, **limits)
    assert fused_norms == pytest.approx(plain_norms, rel=1e-6)
    assert plain.keys() == fused.keys()
    for name, value in plain.items():
        np.testing.assert_allclose(fused[name], value, rtol=3e-5, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("kind", CONFIGS)
@pytest.mark.parametrize("clip_norm", [None, 1.0])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_gradient_that_is_not_finite_reaches_the_weights(mindspore, kernels, kind, value, clip_norm):
    gradients = [[np.ones(shape, np.float32) for shape in SHAPES.values()]]
    gradients[0][2][11, 3] = value
    after, norms = run(mindspore, CONFIGS[kind], fused=True, gradients=gradients, clip_norm=clip_norm, clip_value=None)
    assert not np.isfinite(norms[0])
    reached = [value for name, value in after.items() if name.endswith("fc.weight")]  # Lion's weights move by a sign
    assert not all(np.isfinite(value).all() for value in reached)
    if clip_norm is None:
        assert np.isfinite(after["one"]).all()


def tiny_step(config, *, accumulation, fused):
    """A fused network's step on the same batch again and again, and its moving average."""
    from mvit.models.kernels import operators
    from mvit.models.kernels.network import MobileViT
    from mvit.worker.fused_gradients import FusedGradients
    from mvit.worker.fused_update import FusedEma, FusedUpdate, fused_constants
    from mvit.worker.images import Normalise
    from mvit.worker.input.loader import Batch
    from mvit.worker.input.mix import UNMIXED
    from mvit.worker.optim import make_optimizer
    from mvit.worker.step import RunStep
    from mvit.worker.step_graphs import Update

    operators.open_library(build.library(build.this_cpu()[0]), threads=2)
    net = MobileViT(config.model, num_classes=5)
    trained = net.trainable_params()
    same = {"rate_factors": [1.0] * len(trained), "decays": [True] * len(trained)}
    constants = fused_constants(config.optimizer)
    assert constants is not None
    fused_form = partial(FusedUpdate, kind=config.optimizer.kind, constants=constants, shares_memory=True)
    form = fused_form if fused else Update
    optimizer = make_optimizer(trained, config.optimizer, **same)
    update = form(optimizer, num_parts=accumulation, distributed=False, clip_norm=None, clip_value=None)
    ema = FusedEma(net, 0.5)
    normalise = Normalise(config.data, channels_last=True)
    gradients = FusedGradients(net, split=not fused, normalise=normalise, smoothing=0.0)
    step = RunStep(gradients, update, ema, accumulation=accumulation)
    random = np.random.default_rng(4)
    images = random.integers(0, 256, (4, 32, 32, 3)).astype(np.uint8)
    batch = Batch(images, np.array([0, 1, 2, 3], np.int32), np.ones(4, np.float32))
    draws = [(UNMIXED, key) for key in range(accumulation)]
    return lambda: step(repeat(batch), draws, lr=0.01, decay=0.1)[0].asnumpy(), ema


@pytest.mark.parametrize(
    "fused",
    [pytest.param(True, id="fused-update"), pytest.param(False, id="plain-update", marks=pytest.mark.long)],
)
@pytest.mark.parametrize("accumulation", [1, 2])
def test_the_moving_average_is_of_the_weights_and_statistics_after_the_update(
    mindspore, configured, accumulation, fused
):
    """MindSpore sees neither the update nor BatchNorm move parameters: only the order of a step makes this true."""
    step, ema = tiny_step(configured(*TINY, "data=synthetic"), accumulation=accumulation, fused=fused)
    for _ in range(3):
        old = [average.asnumpy().copy() for average in ema.averages]
        step()
        for before, average, parameter in zip(old, ema.averages, ema.parameters, strict=True):
            expected = before + 0.5 * (parameter.asnumpy() - before)
            np.testing.assert_allclose(average.asnumpy(), expected, rtol=1e-6, atol=1e-7, err_msg=parameter.name)
