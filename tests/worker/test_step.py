"""The training step against NumPy, on a network of one Dense layer."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mvit.config import AdamWConfig, DynamicLossScale, FixedLossScale
from mvit.worker.input import mix
from tests.conftest import CHECKOUT, raw_config

pytestmark = pytest.mark.mindspore

BATCH, SIDE, CLASSES, SMOOTHING = 8, 4, 5, 0.1
FEATURES = 3 * SIDE * SIDE
LR, DECAY, BETA1, BETA2, EPS = 0.05, 0.1, 0.9, 0.999, 1e-8
MEAN, STD = np.array([0.5, 0.4, 0.3]), np.array([0.2, 0.25, 0.3])
UNMIXED = np.array([1, 0, 0, 0, 0, 1], np.float32)
DYNAMIC = DynamicLossScale(kind="dynamic", initial=1024.0, factor=2.0, growth_steps=3)


def normalised(images):
    """(B, H, W, 3) uint8 -> (B, 3, H, W) float64."""
    return ((images / 255.0 - MEAN) / STD).transpose(0, 3, 1, 2)


def mixed(x, mix):
    """What the graph is to do with a batch and its mirror image in order; float64."""
    share, top, bottom, left, right, _ = mix
    out = share * x + (1 - share) * x[::-1]
    box = np.s_[:, :, int(top) : int(bottom), int(left) : int(right)]
    out[box] = x[::-1][box]
    return out


def reference_loss(weight, bias, x, labels, label_weight=1.0):
    """Mean smoothed loss of two labels a sample, and its gradients by weight and bias; float64."""
    logits = x @ weight.T + bias
    p = np.exp(logits - logits.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    target = np.full_like(p, SMOOTHING / CLASSES)
    rows = np.arange(len(labels))
    np.add.at(target, (rows, labels), (1 - SMOOTHING) * label_weight)
    np.add.at(target, (rows, labels[::-1]), (1 - SMOOTHING) * (1 - label_weight))
    loss = -(target * np.log(p)).sum(1).mean()
    delta = (p - target) / len(labels)
    return loss, delta.T @ x, delta.sum(0)


def reference_adamw(w, g, m, v, t):
    w = w * (1 - LR * DECAY)
    m, v = BETA1 * m + (1 - BETA1) * g, BETA2 * v + (1 - BETA2) * g * g
    return w - LR * (m / (1 - BETA1**t)) / (np.sqrt(v / (1 - BETA2**t)) + EPS), m, v


def reference_run(weight, bias, batches, *, clip_norm=None, clip_value=None, ema_momentum=None, mixes=None):
    state = [[weight, 0.0, 0.0], [bias, 0.0, 0.0]]
    averages = [weight, bias]
    losses, norms = [], []
    for t, (images, labels) in enumerate(batches, 1):
        mix = mixes[t - 1] if mixes is not None else UNMIXED
        x = mixed(normalised(images), mix).reshape(len(images), -1)
        loss, *gradients = reference_loss(state[0][0], state[1][0], x, labels, mix[5])
        norm = np.sqrt(sum((g**2).sum() for g in gradients))
        factor = min(1.0, clip_norm / (norm + 1e-6)) if clip_norm else 1.0
        gradients = [g * factor for g in gradients]
        if clip_value:
            gradients = [g.clip(-clip_value, clip_value) for g in gradients]
        state = [list(reference_adamw(w, g, m, v, t)) for (w, m, v), g in zip(state, gradients, strict=True)]
        if ema_momentum:
            pairs = zip(averages, state, strict=True)
            averages = [(1 - ema_momentum) * a + ema_momentum * w for a, (w, *_) in pairs]
        losses.append(loss)
        norms.append(norm)
    return losses, norms, [w for w, *_ in state], averages


def make_batches(count):
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (count, BATCH, SIDE, SIDE, 3), np.uint8)
    return list(zip(images, random.integers(0, CLASSES, (count, BATCH)).astype(np.int32), strict=True))


def make_step(
    ms, *, accumulation=1, clip_norm=None, clip_value=None, loss_scale=None, ema_momentum=None, mixed=False, workers=1
):
    from mindspore import nn, ops

    from mvit.parent.request.check import parse
    from mvit.worker.images import Mix, Normalise
    from mvit.worker.optim import make_optimizer
    from mvit.worker.step import RunStep
    from mvit.worker.step_graphs import Ema, Gradients, Scale, Update

    class Linear(nn.Cell):
        def __init__(self):
            super().__init__()
            self.dense: Any = nn.Dense(FEATURES, CLASSES, weight_init="normal", bias_init="zeros")

        def construct(self, images, key):
            return self.dense(ops.reshape(images, (images.shape[0], -1)))

    ms.set_seed(3)
    net = Linear()
    data = parse(raw_config()).data.model_copy(update={"mean": tuple(MEAN), "std": tuple(STD)})
    config = AdamWConfig(
        kind="adamw",
        lr=LR,
        lr_batch_size=None,
        weight_decay=DECAY,
        decay_excludes="nothing",
        layer_decay=1.0,
        beta1=BETA1,
        beta2=BETA2,
        eps=EPS,
    )
    scale = Scale(loss_scale) if loss_scale else None
    optimizer = make_optimizer(net.trainable_params(), config, rate_factors=[1.0, 1.0], decays=[True, True])
    update = Update(
        optimizer,
        num_parts=accumulation * workers,
        distributed=workers > 1,
        clip_norm=clip_norm,
        clip_value=clip_value,
        scale=scale,
    )
    gradients = Gradients(
        net, normalise=Normalise(data), smoothing=SMOOTHING, mix=Mix() if mixed else None, scale=scale
    )
    ema = Ema(net, ema_momentum) if ema_momentum else None
    step: Any = RunStep(gradients, update, ema, accumulation=accumulation)
    return step, net


def run_step(step, batches, *, accumulation=1, mixes=None):
    from mvit.worker.input.loader import Batch

    losses, norms = [], []
    for t, (images, labels) in enumerate(batches):
        parts = zip(np.split(images, accumulation), np.split(labels, accumulation), strict=True)
        micro = iter([Batch(x, y, np.ones(len(y), np.float32)) for x, y in parts])
        draws = [(mixes[t] if mixes is not None else UNMIXED, key) for key in range(accumulation)]
        loss_sum, norm = step(micro, draws, lr=LR, decay=DECAY)
        losses.append(float(loss_sum.asnumpy()) / BATCH)
        norms.append(float(norm.asnumpy()))
    return losses, norms


@pytest.mark.parametrize(
    "case",
    [
        {},
        {"clip_norm": 0.3},
        {"clip_value": 0.02},
        {"accumulation": 2},
        {"loss_scale": FixedLossScale(kind="fixed", value=1024.0)},
        {"loss_scale": DYNAMIC, "accumulation": 2, "clip_norm": 0.3},
        {"accumulation": 4, "clip_norm": 0.3},
        {"ema_momentum": 0.2},
        {"ema_momentum": 0.2, "accumulation": 2},
    ],
    ids=lambda case: ",".join(case) or "plain",
)
def test_steps_equal_a_numpy_reference(mindspore, case):
    step, net = make_step(mindspore, **case)
    start = [p.asnumpy().astype(np.float64) for p in net.trainable_params()]
    batches = make_batches(6)
    wanted = {key: case[key] for key in ("clip_norm", "clip_value", "ema_momentum") if key in case}
    losses, norms, weights, averages = reference_run(start[0], start[1], batches, **wanted)
    found, found_norms = run_step(step, batches, accumulation=case.get("accumulation", 1))
    worst = np.abs(np.array(found) - losses).max()
    print(f"{case}: largest difference of the loss {worst:.1e}")
    assert worst < 1e-5
    np.testing.assert_allclose(found_norms, norms, rtol=1e-5)
    for parameter, expected in zip(net.trainable_params(), weights, strict=True):
        np.testing.assert_allclose(parameter.asnumpy(), expected, atol=1e-5)
    if "ema_momentum" in case:
        for parameter, expected in zip(step.apply.ema.averages, averages, strict=True):
            assert parameter.name.startswith("ema.")
            worst = np.abs(parameter.asnumpy() - expected).max()
            print(f"largest difference of {parameter.name}: {worst:.1e}")
            assert worst < 1e-5


def test_mixup_and_cutmix_equal_a_numpy_reference(mindspore):
    from mvit.config import MixConfig

    config = MixConfig(probability=1.0, mixup_alpha=0.8, cutmix_alpha=1.0, cutmix_share=0.5)
    mixes = [mix.draw(config, seed=1, step=step, part=0, image_size=SIDE) for step in range(8)]
    boxes = [bool(drawn[2] > drawn[1]) for drawn in mixes]
    assert any(boxes)
    assert not all(boxes)
    step, net = make_step(mindspore, mixed=True)
    start = [p.asnumpy().astype(np.float64) for p in net.trainable_params()]
    batches = make_batches(8)
    losses, norms, weights, _ = reference_run(start[0], start[1], batches, mixes=[m.astype(np.float64) for m in mixes])
    found, found_norms = run_step(step, batches, mixes=mixes)
    worst = np.abs(np.array(found) - losses).max()
    print(f"mixup and cutmix: largest difference of the loss {worst:.1e}")
    assert worst < 1e-5
    np.testing.assert_allclose(found_norms, norms, rtol=1e-5)
    for parameter, expected in zip(net.trainable_params(), weights, strict=True):
        np.testing.assert_allclose(parameter.asnumpy(), expected, atol=1e-5)
    assert step.compiled() == 1


def test_a_mixed_image_is_its_own_outside_the_box_and_its_partners_inside(mindspore):
    from mvit.worker.images import Mix

    x = np.random.default_rng(0).normal(size=(4, 3, SIDE, SIDE)).astype(np.float32)
    for drawn in ([0.25, 0, 0, 0, 0, 0.25], [1, 1, 3, 0, 2, 0.75], [1, 0, 0, 0, 0, 1]):
        found = Mix()(mindspore.Tensor(x), mindspore.Tensor(np.array(drawn, np.float32))).asnumpy()
        np.testing.assert_allclose(found, mixed(x.astype(np.float64), drawn), atol=1e-6)
    assert (found == x).all()


def test_normalisation_and_channel_order_are_those_of_the_data(mindspore):
    from mvit.parent.request.check import parse
    from mvit.worker.images import Normalise

    pixels = np.random.default_rng(0).integers(0, 256, (2, SIDE, SIDE, 3), np.uint8)
    data = parse(raw_config()).data.model_copy(update={"mean": tuple(MEAN), "std": tuple(STD)})
    found = Normalise(data)(mindspore.Tensor(pixels)).asnumpy()
    np.testing.assert_allclose(found, normalised(pixels), atol=1e-5)
    swapped = Normalise(data.model_copy(update={"channel_order": "bgr"}))(mindspore.Tensor(pixels)).asnumpy()
    np.testing.assert_allclose(swapped, normalised(pixels[..., ::-1]), atol=1e-5)


def test_one_graph_serves_every_rate_key_and_mixing(mindspore):
    from mvit.worker.input.loader import Batch

    step, _ = make_step(mindspore, mixed=True)
    (images, labels), *_ = make_batches(1)
    compiled = []
    for lr, decay, key, share in ((0.1, 0.0, 1, 0.3), (0.2, 0.3, 2, 0.7)):
        mix = np.array([share, 0, 0, 0, 0, share], np.float32)
        step(iter([Batch(images, labels, labels)]), [(mix, key)], lr=lr, decay=decay)
        compiled.append(step.compiled())
    assert compiled == [1, 1]


def snapshot(step):
    cells = [step.apply.update.optimizer, step.apply.gradients.net, *([step.apply.ema] if step.apply.ema else [])]
    return {p.name: p.asnumpy().copy() for cell in cells for p in cell.get_parameters()}


def test_an_overflow_drops_the_update_to_the_bit_and_halves_the_scale(mindspore):
    step, _ = make_step(mindspore, loss_scale=DYNAMIC, ema_momentum=0.5)
    scale = step.apply.update.scale
    good, *_ = make_batches(1)
    run_step(step, [good])
    before = snapshot(step)
    scale.value.set_data(mindspore.Tensor(3e38, mindspore.float32))  # gradients times this overflow
    run_step(step, [good])
    assert all((value == before[name]).all() for name, value in snapshot(step).items())
    assert float(scale.value.asnumpy()) < 3e38
    assert (float(scale.dropped.asnumpy()), float(scale.dropped_in_a_row.asnumpy())) == (1.0, 1.0)
    scale.value.set_data(mindspore.Tensor(1024.0, mindspore.float32))
    values = []
    for _ in range(4):
        run_step(step, [good])
        values.append(float(scale.value.asnumpy()))
    assert values == [1024.0, 1024.0, 2048.0, 2048.0]
    assert float(scale.dropped_in_a_row.asnumpy()) == 0.0
    assert (snapshot(step)["dense.weight"] != before["dense.weight"]).any()


INJECTED = """
import json, os, sys
from mvit.process import die_with_parent
die_with_parent()
import mindspore as ms
from mvit.worker import collectives, device
import numpy as np
if os.environ.get("MS_ROLE") != "MS_SCHED":
    device.open_device("CPU", threads=1, jit_level=None)
collectives.join(2)
from tests.worker.test_step import DYNAMIC, make_batches, make_step, run_step, snapshot
rank = int(os.environ["RANK_ID"])
step, net = make_step(ms, loss_scale=DYNAMIC, ema_momentum=0.5, workers=2)
scale = step.apply.update.scale
batches = make_batches(4)
run_step(step, batches[:1])
before, scale_before = snapshot(step), float(scale.value.asnumpy())
if rank == 1:  # of one worker only: its own gradients overflow, the other's are fine
    net.dense.bias.set_data(ms.Tensor(np.full(5, np.inf, np.float32)))
run_step(step, batches[1:2])
if rank == 1:
    net.dense.bias.set_data(ms.Tensor(before["dense.bias"]))
after = snapshot(step)
said = {
    "same": all(bool((after[name] == before[name]).all()) for name in before if name != "ema.dense.bias"),
    "scale": [scale_before, float(scale.value.asnumpy())],
    "dropped": float(scale.dropped.asnumpy()),
}
run_step(step, batches[2:])
said["weights"] = float(np.abs(net.dense.weight.asnumpy()).sum())
said["moved"] = bool((net.dense.weight.asnumpy() != before["dense.weight"]).any())
open(sys.argv[1] + f"/{rank}.json", "w").write(json.dumps(said))
"""


def test_an_overflow_on_one_of_two_workers_drops_the_update_on_both(tmp_path):
    from mvit.parent.host import free_port

    script = tmp_path / "injected.py"
    script.write_text(INJECTED)
    python = Path(sys.executable).parent
    env = {**os.environ, "PATH": f"{python}:{os.environ['PATH']}", "PYTHONPATH": str(CHECKOUT), "GLOG_v": "3"}
    command = ["msrun", "--worker_num", "2", "--local_worker_num", "2", "--master_addr", "127.0.0.1"]
    command += ["--master_port", str(free_port()), "--log_dir", str(tmp_path / "logs"), "--join=True"]
    command += ["--tail_worker_log", "2", "python", str(script), str(tmp_path)]
    done = subprocess.run(
        [f"{python}/{command[0]}", *command[1:]], env=env, capture_output=True, text=True, timeout=200
    )
    logs = "".join(path.read_text()[-2000:] for path in (tmp_path / "logs").glob("worker_*.log"))
    assert done.returncode == 0, logs
    said = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1)]
    print(f"an overflow on worker 1 of two: {said}")
    for one in said:
        assert one["same"]
        assert one["scale"] == [1024.0, 512.0]
        assert one["dropped"] == 1.0
        assert one["moved"]
    assert said[0]["weights"] == said[1]["weights"]
