"""Each optimizer against a float64 NumPy reference of its paper, and what an update that is not applied leaves."""

import numpy as np
import pytest

from mvit.config import AdamWConfig, LambConfig, LionConfig, SgdConfig

pytestmark = pytest.mark.mindspore

SHAPES = {"conv.weight": (4, 3, 3, 3), "norm.gamma": (7,), "zero.weight": (5, 6)}
FACTORS, DECAYS = (1.0, 0.25, 0.5), (True, False, True)
COMMON = {"lr": 0.01, "lr_batch_size": None, "weight_decay": 0.1, "decay_excludes": "nothing", "layer_decay": 1.0}
CONFIGS = {
    "adamw": AdamWConfig(kind="adamw", beta1=0.9, beta2=0.999, eps=1e-8, **COMMON),
    "sgd": SgdConfig(kind="sgd", momentum=0.9, nesterov=False, **COMMON),
    "nesterov": SgdConfig(kind="sgd", momentum=0.9, nesterov=True, **COMMON),
    "lion": LionConfig(kind="lion", beta1=0.9, beta2=0.99, **COMMON),
    "lamb": LambConfig(kind="lamb", beta1=0.9, beta2=0.999, eps=1e-6, **COMMON),
}
STATE = {
    "adamw": ("adam_m", "adam_v"),
    "sgd": ("momentum",),
    "nesterov": ("momentum",),
    "lion": ("momentum",),
    "lamb": ("lamb_m", "lamb_v"),
}


def reference_adamw(c, w, g, state, t, lr, decay, decays):
    m, v = state
    w = w - lr * decay * w if decays else w
    m, v = c.beta1 * m + (1 - c.beta1) * g, c.beta2 * v + (1 - c.beta2) * g**2
    return w - lr * (m / (1 - c.beta1**t)) / (np.sqrt(v / (1 - c.beta2**t)) + c.eps), (m, v)


def reference_sgd(c, w, g, state, t, lr, decay, decays):
    d = g + decay * w if decays else g
    v = c.momentum * state[0] + d
    return w - lr * (d + c.momentum * v if c.nesterov else v), (v,)


def reference_lion(c, w, g, state, t, lr, decay, decays):
    update = np.sign(c.beta1 * state[0] + (1 - c.beta1) * g)
    return w - lr * (update + (decay * w if decays else 0.0)), (c.beta2 * state[0] + (1 - c.beta2) * g,)


def reference_lamb(c, w, g, state, t, lr, decay, decays):
    m, v = c.beta1 * state[0] + (1 - c.beta1) * g, c.beta2 * state[1] + (1 - c.beta2) * g**2
    update = (m / (1 - c.beta1**t)) / (np.sqrt(v / (1 - c.beta2**t)) + c.eps)
    if decays:
        update = update + decay * w
        norms = np.linalg.norm(w), np.linalg.norm(update)
        update = update * (norms[0] / norms[1] if all(norms) else 1.0)
    return w - lr * update, (m, v)


REFERENCES = {
    "adamw": reference_adamw,
    "sgd": reference_sgd,
    "nesterov": reference_sgd,
    "lion": reference_lion,
    "lamb": reference_lamb,
}


class Run:
    """An optimizer over three tensors, one of them zero at first."""

    def __init__(self, ms, kind):
        from mindspore import nn

        from mvit.worker.optim import make_optimizer

        class Graph(nn.Cell):
            """Gradients one by one: a tuple of tensors from outside counts as a constant of the graph."""

            def __init__(self, optimizer):
                super().__init__(auto_prefix=False)
                self.optimizer = optimizer

            def construct(self, lr, decay, apply, *gradients):
                return self.optimizer(gradients, lr, decay, apply)

        self.ms, self.random = ms, np.random.default_rng(0)
        values = [np.zeros(s) if name == "zero.weight" else self.random.normal(size=s) for name, s in SHAPES.items()]
        self.parameters = [
            ms.Parameter(ms.Tensor(value, ms.float32), name=name) for name, value in zip(SHAPES, values, strict=True)
        ]
        self.optimizer = make_optimizer(self.parameters, CONFIGS[kind], rate_factors=FACTORS, decays=DECAYS)
        self.graph = Graph(self.optimizer)

    def gradients(self):
        return [self.random.normal(size=shape).astype(np.float32) for shape in SHAPES.values()]

    def update(self, gradients, *, lr=0.01, decay=0.1, apply=1.0):
        scalars = [self.ms.Tensor(value, self.ms.float32) for value in (lr, decay, apply)]
        self.graph(*scalars, *(self.ms.Tensor(gradient) for gradient in gradients))

    def state(self):
        return {name: value.asnumpy().copy() for name, value in self.optimizer.parameters_dict().items()}


def follow(run, kind, *, steps):
    """Weights of the reference after `steps` updates, and of the run, which is taken along."""
    weights = [parameter.asnumpy().astype(np.float64) for parameter in run.parameters]
    states = [tuple(0.0 for _ in STATE[kind]) for _ in weights]
    for t in range(1, steps + 1):
        gradients, lr, decay = run.gradients(), 0.01 * (1 + t % 3), 0.1 * (t % 2)
        run.update(gradients, lr=lr, decay=decay)
        for i, gradient in enumerate(gradients):
            weights[i], states[i] = REFERENCES[kind](
                CONFIGS[kind], weights[i], gradient.astype(np.float64), states[i], t, lr * FACTORS[i], decay, DECAYS[i]
            )
    return weights, states


@pytest.mark.parametrize("kind", CONFIGS)
def test_updates_equal_a_numpy_reference(mindspore, kind):
    run = Run(mindspore, kind)
    weights, states = follow(run, kind, steps=50 if kind == "adamw" else 20)
    found = [parameter.asnumpy() for parameter in run.parameters]
    worst = max(np.abs(a - b).max() for a, b in zip(found, weights, strict=True))
    print(f"{kind}: largest difference of a weight {worst:.1e}")
    assert worst < 1e-5
    after = run.state()
    for name, state in zip(SHAPES, states, strict=True):
        for prefix, expected in zip(STATE[kind], state, strict=True):
            np.testing.assert_allclose(after[f"{prefix}.{name}"], expected, rtol=1e-4, atol=1e-5)


def bits(state):
    return {name: value.tobytes() for name, value in state.items()}


@pytest.mark.parametrize("kind", CONFIGS)
def test_an_update_that_is_not_applied_leaves_every_bit_and_one_graph_serves_all(mindspore, kind):
    run = Run(mindspore, kind)
    for applied in range(3):
        before = run.state()
        for factor in (1.0, 0.0, 1e15):
            run.update([gradient * factor for gradient in run.gradients()], lr=1.0 + factor, apply=0.0)
        assert bits(run.state()) == bits(before)
        run.update(run.gradients(), lr=0.1 * applied, decay=0.2 * applied)
        assert run.state()["optimizer_step"] == applied + 1
    assert len(run.graph.compile_cache) == 1


@pytest.mark.parametrize("kind", CONFIGS)
def test_a_dropped_update_is_as_if_it_had_never_been(mindspore, kind):
    runs = [Run(mindspore, kind) for _ in range(2)]
    for step in range(6):
        for run, drops in zip(runs, (True, False), strict=True):
            gradients = run.gradients()
            run.update(gradients)
            if drops and step == 2:
                run.update(gradients, apply=0.0)
    first, second = (run.state() for run in runs)
    assert bits(first) == bits(second)


@pytest.mark.parametrize("kind", CONFIGS)
def test_the_state_is_named_after_the_parameters(mindspore, kind):
    run = Run(mindspore, kind)
    moments = {f"{prefix}.{name}" for prefix in STATE[kind] for name in SHAPES}
    assert set(run.state()) == {*SHAPES, *moments, "optimizer_step"}
    assert list(run.optimizer.parameters) == run.parameters
