"""Evaluation over shards that do not divide the set."""

import math
from dataclasses import replace

import numpy as np
import pytest

from mvit.config import AugmentConfig, SyntheticData
from mvit.parent.request.check import parse
from tests.conftest import raw_config

pytestmark = pytest.mark.mindspore

SAMPLES, CLASSES, BATCH = 26, 7, 4


@pytest.fixture(scope="module")
def evaluated(mindspore):
    """Evaluate a fixed random network over `world_size` shards; per-shard results and a NumPy reference."""
    from mindspore import nn, ops

    from mvit.data.synthetic import Drawings
    from mvit.worker.evaluate import EvaluateStep, evaluate_batches
    from mvit.worker.images import Normalise
    from mvit.worker.input.loader import Loader
    from mvit.worker.input.sampler import shard

    config = parse(raw_config("data=synthetic", f"data.classes={CLASSES}", "data.image_size=32"))
    assert isinstance(config.data, SyntheticData)
    source = Drawings(config.data, SAMPLES, stream=2)
    mindspore.set_seed(1)

    class Net(nn.Cell):
        def __init__(self):
            super().__init__()
            self.dense = nn.Dense(3 * 32 * 32, CLASSES)

        def construct(self, images, key):
            return self.dense(ops.reshape(images, (images.shape[0], -1)))

    net = Net()
    step = EvaluateStep(net, normalise=Normalise(config.data), num_classes=CLASSES)
    loader = Loader(config.data, augment=None, seed=0, largest=SAMPLES * 32**2, in_memory=True)

    def run(world_size, *, keep=True):
        steps = math.ceil(math.ceil(SAMPLES / world_size) / BATCH)
        parts = []
        for rank in range(world_size):
            indices = shard(SAMPLES, rank=rank, world_size=world_size)
            batches = loader.evaluate(source, indices, batch_size=BATCH, num_batches=steps)
            parts.append(evaluate_batches(step, batches, num_classes=CLASSES, add_up=lambda vector: vector, keep=keep))
        return parts

    yield run, source, net, loader
    loader.close()


@pytest.mark.parametrize("world_size", [1, 2, 3, 7])
def test_counts_are_the_same_for_any_number_of_shards(evaluated, world_size):
    run, *_ = evaluated
    (whole,) = run(1)
    parts = run(world_size)
    assert sum(part.count for part in parts) == SAMPLES
    assert sum(part.correct1 for part in parts) == whole.correct1
    assert sum(part.correct5 for part in parts) == whole.correct5
    assert (sum(part.confusion for part in parts) == whole.confusion).all()
    assert sum(part.reliability for part in parts) == pytest.approx(whole.reliability, rel=1e-5)
    for rank, part in enumerate(parts):
        mine = np.arange(rank, SAMPLES, world_size)
        assert (part.shard.labels == whole.shard.labels[mine]).all()
        assert part.shard.logits == pytest.approx(whole.shard.logits[mine], abs=1e-5)
    assert sum(part.loss_sum for part in parts) == pytest.approx(whole.loss_sum, rel=1e-6)
    print(f"{world_size} shards: {whole.correct1} and {whole.correct5} right of {SAMPLES}")


def test_sums_equal_a_numpy_reference(evaluated):
    run, source, net, loader = evaluated
    (found,) = run(1)
    (batch,) = loader.evaluate(source, np.arange(SAMPLES), batch_size=SAMPLES, num_batches=1)
    x = ((batch.images / 255 - 0.5) / 0.25).transpose(0, 3, 1, 2)
    logits = x.reshape(SAMPLES, -1) @ net.dense.weight.asnumpy().T + net.dense.bias.asnumpy()
    order = np.argsort(-logits, 1)
    p = np.exp(logits - logits.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    labels = source.labels
    assert found.correct1 == (order[:, 0] == labels).sum()
    assert found.correct5 == (order[:, :5] == labels[:, None]).any(1).sum()
    assert found.loss_sum == pytest.approx(-np.log(p[np.arange(SAMPLES), labels]).sum(), rel=1e-5)
    assert found.shard.logits == pytest.approx(logits, abs=1e-4)
    assert np.trace(found.confusion) == found.correct1
    assert (found.confusion.sum(1) == np.bincount(labels, minlength=CLASSES)).all()


def test_logits_that_would_be_too_many_are_not_kept(evaluated):
    run, *_ = evaluated
    (kept,), (found,) = run(1), run(1, keep=False)
    assert found.shard is None
    assert found.metrics() == kept.metrics()


def test_augmentation_does_not_reach_evaluation(evaluated):
    *_, source, _, loader = (None, *evaluated)

    def view():
        return next(iter(loader.evaluate(source, np.arange(4), batch_size=4, num_batches=1))).images.copy()

    before = view()
    strong = AugmentConfig.model_validate(raw_config("augment=mindcv")["augment"])
    loader.recipe = replace(loader.recipe, augment=strong)
    assert (before == view()).all()
