"""mvit.models.mobilevit and layers: stateless dropout against its definition in NumPy, and images of any size."""

import math

import numpy as np
import pytest

pytestmark = pytest.mark.mindspore

RATE, SALT, SHAPE = 0.1, 3, (64, 16, 32)


def reference_mask(shape, *, key, salt, rate):
    """What is kept, by the definition in `layers.Dropout`, in Python's integers and uint32."""

    def lowbias32(h):
        h = np.asarray([value & 0xFFFFFFFF for value in h], np.uint32)
        h = (h ^ (h >> np.uint32(16))) * np.uint32(0x7FEB352D)
        h = (h ^ (h >> np.uint32(15))) * np.uint32(0x846CA68B)
        return h ^ (h >> np.uint32(16))

    start = (key ^ (salt * 0x85EBCA6B + 1)) & 0xFFFFFFFF
    rows = lowbias32([row * 0x9E3779B1 + start for row in range(shape[0])])
    columns = lowbias32([column * 0x9E3779B1 + 0x7F4A7C15 + salt for column in range(math.prod(shape[1:]))])
    mixed = rows[:, None] ^ columns[None, :]
    return ((mixed * mixed).view(np.int32) >= int(rate * 2**32) - 2**31).reshape(shape)


def reference_key(step):
    """Keys as a training run has them: far apart and of either sign."""
    return int(np.random.default_rng(step).integers(-(2**31), 2**31))


@pytest.fixture(scope="module")
def drop(mindspore):
    """What dropout makes of ones, for a key."""
    from mvit.models.layers import Dropout

    cell = Dropout(RATE, salt=SALT).set_train(True)
    ones = mindspore.Tensor(np.ones(SHAPE, np.float32))
    return lambda key: cell(ones, mindspore.Tensor(key, mindspore.int32)).asnumpy()


@pytest.fixture(scope="module")
def masks():
    """Kept or not, by the reference: (keys, rows, columns), centred and scaled to variance 1."""
    kept = np.stack([reference_mask(SHAPE, key=reference_key(step), salt=SALT, rate=RATE) for step in range(60)])
    kept = kept.reshape(60, SHAPE[0], -1)
    return (kept - (1 - RATE)) / math.sqrt(RATE * (1 - RATE))


@pytest.mark.parametrize("key", [0, 1, -77, 12345, 2**31 - 1, -(2**31)])
def test_dropout_is_the_hash_it_says(drop, key):
    kept = reference_mask(SHAPE, key=key, salt=SALT, rate=RATE)
    np.testing.assert_allclose(drop(key), kept / (1 - RATE), rtol=1e-6)


@pytest.mark.parametrize(("rate", "salt"), [(0.05, 0), (0.5, 18)])
def test_dropout_of_another_rate_and_salt_is_its_own_hash(mindspore, rate, salt):
    from mvit.models.layers import Dropout

    cell = Dropout(rate, salt=salt).set_train(True)
    made = cell(mindspore.Tensor(np.ones((8, 40), np.float32)), mindspore.Tensor(9, mindspore.int32)).asnumpy()
    np.testing.assert_array_equal(made != 0, reference_mask((8, 40), key=9, salt=salt, rate=rate))


def test_the_same_key_gives_the_same_mask_and_another_key_another(drop):
    np.testing.assert_array_equal(drop(5), drop(5))
    assert (drop(5) != drop(6)).any()


def test_dropout_does_nothing_in_evaluation(mindspore):
    from mvit.models.layers import Dropout

    x = np.random.default_rng(0).normal(size=(4, 6)).astype(np.float32)
    cell = Dropout(0.5, salt=1).set_train(False)
    np.testing.assert_array_equal(cell(mindspore.Tensor(x), mindspore.Tensor(1, mindspore.int32)).asnumpy(), x)


def test_the_rate_holds_over_keys_rows_and_columns(masks):
    # The mean of n independent elements has standard deviation 1/sqrt(n); 5 of them is chance enough.
    assert abs(masks.mean()) < 5 / math.sqrt(masks.size)
    for axes, name in (((1, 2), "key"), ((0, 2), "row"), ((0, 1), "column")):
        means = masks.mean(axes)
        spread = means.std() * math.sqrt(masks.size / means.size)
        assert 0.7 < spread < 1.3, f"means by {name} spread {spread:.2f} times what chance does"


@pytest.mark.parametrize("axis", ["key", "row", "column"])
def test_masks_of_different_keys_rows_and_columns_are_independent(masks, axis):
    samples = np.moveaxis(masks, ("key", "row", "column").index(axis), 0)[:200]
    samples = samples.reshape(len(samples), -1)
    correlation = (samples @ samples.T / samples.shape[1])[np.triu_indices(len(samples), 1)]
    assert abs(correlation.mean()) < 5 / math.sqrt(samples.shape[1])
    assert abs(correlation).max() < 8 / math.sqrt(samples.shape[1])
    assert 0.7 < correlation.std() * math.sqrt(samples.shape[1]) < 1.3


def test_cells_of_one_network_drop_independently():
    first, second = (reference_mask(SHAPE, key=11, salt=salt, rate=RATE).ravel() for salt in (0, 1))
    assert abs(np.corrcoef(first, second)[0, 1]) < 5 / math.sqrt(first.size)


@pytest.fixture(scope="module")
def network(mindspore, tiny):
    from mvit.models.mobilevit import MobileViT

    mindspore.set_seed(0)
    return MobileViT(tiny, num_classes=5)


@pytest.mark.parametrize(
    ("height", "width"),
    [(33, 47), (96, 160), *(pytest.param(side, side, marks=pytest.mark.long) for side in (32, 65))],
)
def test_images_of_any_size_give_finite_logits(mindspore, network, height, width):
    images = np.random.default_rng(0).normal(size=(2, 3, height, width)).astype(np.float32)
    network.set_train(False)
    logits = network(mindspore.Tensor(images), mindspore.Tensor(0, mindspore.int32)).asnumpy()
    assert logits.shape == (2, 5)
    assert logits.dtype == np.float32
    assert np.isfinite(logits).all()


def test_the_key_matters_in_training_and_not_in_evaluation(mindspore, network):
    images = mindspore.Tensor(np.random.default_rng(1).normal(size=(2, 3, 32, 32)).astype(np.float32))

    def logits(key):
        return network(images, mindspore.Tensor(key, mindspore.int32)).asnumpy()

    network.set_train(False)
    np.testing.assert_array_equal(logits(1), logits(2))
    network.set_train(True)
    assert (logits(1) != logits(2)).any()
    network.set_train(False)
