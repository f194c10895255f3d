"""The training step against NumPy, on a network of one Dense layer."""

import numpy as np
import pytest

pytestmark = pytest.mark.mindspore

BATCH, SIDE, CLASSES, SMOOTHING = 8, 2, 5, 0.1
FEATURES = 3 * SIDE * SIDE
LR, DECAY, BETA1, BETA2, EPS = 0.05, 0.1, 0.9, 0.999, 1e-8


def reference_loss(weight, bias, x, labels):
    """Mean smoothed loss, and its gradients by weight and bias; float64."""
    logits = x @ weight.T + bias
    p = np.exp(logits - logits.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    target = np.full_like(p, SMOOTHING / CLASSES)
    target[np.arange(len(labels)), labels] += 1 - SMOOTHING
    loss = -(target * np.log(p)).sum(1).mean()
    delta = (p - target) / len(labels)
    return loss, delta.T @ x, delta.sum(0)


def reference_adamw(w, g, m, v, t):
    w = w * (1 - LR * DECAY)
    m, v = BETA1 * m + (1 - BETA1) * g, BETA2 * v + (1 - BETA2) * g * g
    return w - LR * (m / (1 - BETA1**t)) / (np.sqrt(v / (1 - BETA2**t)) + EPS), m, v


def reference_run(weight, bias, batches, *, clip_norm=None):
    state = [[weight, 0.0, 0.0], [bias, 0.0, 0.0]]
    losses, norms = [], []
    for t, (x, labels) in enumerate(batches, 1):
        loss, *gradients = reference_loss(state[0][0], state[1][0], x, labels)
        norm = np.sqrt(sum((g**2).sum() for g in gradients))
        factor = min(1.0, clip_norm / (norm + 1e-6)) if clip_norm else 1.0
        state = [list(reference_adamw(w, g * factor, m, v, t)) for (w, m, v), g in zip(state, gradients, strict=True)]
        losses.append(loss)
        norms.append(norm)
    return losses, norms, state[0][0], state[1][0]


def make_batches(count):
    random = np.random.default_rng(0)
    images = random.normal(size=(count, BATCH, 3, SIDE, SIDE)).astype(np.float32)
    return list(zip(images, random.integers(0, CLASSES, (count, BATCH)).astype(np.int32), strict=True))


def make_step(ms, *, accumulation=1, clip_norm=None, loss_scale=1.0):
    from mindspore import nn, ops

    from mvit.config import AdamWConfig
    from mvit.train.loop import Step
    from mvit.train.optim import AdamW
    from mvit.train.step import Gradients, Update

    class Linear(nn.Cell):
        def __init__(self):
            super().__init__()
            self.dense = nn.Dense(FEATURES, CLASSES, weight_init="normal", bias_init="zeros")

        def construct(self, images, key):
            return self.dense(ops.reshape(images, (images.shape[0], -1)))

    ms.set_seed(3)
    net = Linear()
    config = AdamWConfig(kind="adamw", lr=LR, weight_decay=DECAY, beta1=BETA1, beta2=BETA2, eps=EPS)
    optimizer = AdamW(net.trainable_params(), config)
    update = Update(optimizer, num_parts=accumulation, clip_norm=clip_norm, loss_scale=loss_scale, distributed=False)
    step = Step(Gradients(net, smoothing=SMOOTHING, loss_scale=loss_scale), update, accumulation=accumulation)
    return step, net


def run_step(step, batches, *, accumulation=1):
    from mvit.train.data.loader import Batch

    losses, norms = [], []
    for t, (images, labels) in enumerate(batches, 1):
        parts = zip(np.split(images, accumulation), np.split(labels, accumulation), strict=True)
        micro = iter([Batch(x, y, np.ones(len(y), np.float32)) for x, y in parts])
        loss_sum, norm = step(micro, list(range(accumulation)), (LR, DECAY, BETA1**t, BETA2**t))
        losses.append(float(loss_sum.asnumpy()) / BATCH)
        norms.append(float(norm.asnumpy()))
    return losses, norms


@pytest.mark.parametrize(
    "case", [{}, {"clip_norm": 0.3}, {"accumulation": 2}, {"loss_scale": 1024.0}, {"accumulation": 4, "clip_norm": 0.3}]
)
def test_steps_equal_a_numpy_reference_of_adamw_and_label_smoothing(mindspore, case):
    step, net = make_step(mindspore, **case)
    weight, bias = (p.asnumpy().astype(np.float64) for p in net.trainable_params())
    batches = make_batches(6)
    flat = [(images.reshape(BATCH, -1).astype(np.float64), labels) for images, labels in batches]
    losses, norms, end_weight, end_bias = reference_run(weight, bias, flat, clip_norm=case.get("clip_norm"))
    found, found_norms = run_step(step, batches, accumulation=case.get("accumulation", 1))
    worst = np.abs(np.array(found) - losses).max()
    print(f"{case}: largest difference of the loss {worst:.1e}")
    assert worst < 1e-5
    np.testing.assert_allclose(found_norms, norms, rtol=1e-5)
    np.testing.assert_allclose(net.dense.weight.asnumpy(), end_weight, atol=1e-5)
    np.testing.assert_allclose(net.dense.bias.asnumpy(), end_bias, atol=1e-5)


def test_one_graph_serves_every_rate_and_seed(mindspore):
    from mvit.train.data.loader import Batch

    step, _ = make_step(mindspore)
    (images, labels), *_ = make_batches(1)
    compiled = []
    for lr, decay, key in ((0.1, 0.0, 1), (0.2, 0.3, 2)):
        step(iter([Batch(images, labels, labels)]), [key], (lr, decay, BETA1, BETA2))
        compiled.append(len(step.apply.compile_cache))
    assert compiled == [1, 1]


def test_a_loss_that_is_not_finite_names_its_steps(mindspore):
    from mvit.train.loop import NonFiniteLoss, Window

    window = Window(global_batch_size=2)
    for index, value in enumerate((1.0, float("nan"), float("inf"))):
        window.add(index, mindspore.Tensor(value, mindspore.float32))
    with pytest.raises(NonFiniteLoss, match="not finite at steps 2 to 3; lower optimizer.lr"):
        window.close()
