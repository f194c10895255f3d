"""The fused update against the plain one: the same weights, moments and norms, step after step."""

import numpy as np
import pytest

from mvit.models.kernels import build
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
        FusedUpdate(optimizer, kind=config.kind, constants=constants, **limits)
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
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_gradient_that_is_not_finite_reaches_the_weights(mindspore, kernels, kind, value):
    gradients = [[np.ones(shape, np.float32) for shape in SHAPES.values()]]
    gradients[0][2][11, 3] = value
    after, norms = run(mindspore, CONFIGS[kind], fused=True, gradients=gradients, clip_norm=1.0, clip_value=None)
    assert not np.isfinite(norms[0])
    assert not np.isfinite(after["fc.weight"]).all()
