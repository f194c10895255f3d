"""The fused kernels against the plain form: outputs, gradients, running statistics."""

import numpy as np
import pytest

from mvit.models.kernels import build

KEY = 77


@pytest.fixture(params=[1, 3], ids=["one-thread", "three-threads"])
def kernels(request, mindspore):
    open_library("fp32", threads=request.param)


def open_library(activations, *, threads=3):
    from mvit.models.kernels import operators

    operators.open_library(build.library(build.this_cpu()[0], activations), threads=threads)


def fill(ms, cell, seed=3):
    """Give the parameters values by their names, so that two forms of a cell get the same."""
    rng = np.random.default_rng(seed)
    for parameter in sorted(cell.get_parameters(), key=lambda p: p.name):
        shape, name = parameter.shape, parameter.name
        value = rng.normal(size=shape)
        if name.endswith(("gamma", "moving_variance")):
            value = 1.0 + 0.2 * np.abs(value)
        elif len(shape) == 1:
            value *= 0.1
        else:
            value /= np.sqrt(np.prod(shape[1:]))
        parameter.set_data(ms.Tensor(value.astype(np.float32)))


def outcome(ms, cell, x, *rest, weights, training=True):
    """Output, gradient of its product with `weights` for x and each parameter, and running statistics afterwards."""
    from mindspore import nn, ops

    from mvit.models.kernels.network import MobileViT, Stem

    class Differentiated(nn.Cell):
        def __init__(self, cell):
            super().__init__(auto_prefix=False)
            self.cell = cell
            self.parameters = ms.ParameterTuple(cell.trainable_params())
            self.differentiate = ops.value_and_grad(self.forward, 0, self.parameters, has_aux=True)

        def forward(self, x, weights, *rest):
            y = self.cell(x, *rest)
            return ops.reduce_sum(y * weights), y

        def construct(self, x, weights, *rest):
            (_, y), (dx, gradients) = self.differentiate(x, weights, *rest)
            return y, (dx, gradients)

    class WrittenOut(nn.Cell):
        def __init__(self, cell):
            super().__init__(auto_prefix=False)
            self.cell = cell

        def construct(self, x, weights, *rest):
            y, kept = self.cell(x, *rest)
            return y, self.cell.backward(kept, weights)

    fill(ms, cell)
    cell.set_train(training)
    x = ms.Tensor(np.ascontiguousarray(x))
    if not training:
        return {"y": cell(x, *rest).asnumpy()}
    is_fused = hasattr(cell, "differentiated")
    graph = WrittenOut(cell) if is_fused else Differentiated(cell)
    graph.set_train(True)
    y, gradients = graph(x, ms.Tensor(np.ascontiguousarray(weights)), *rest)
    values = {"y": y.asnumpy()}
    if not is_fused or not isinstance(cell, (MobileViT, Stem)):  # which have no gradient of the images
        values["dx"] = gradients[0].asnumpy()
    if is_fused:
        for part, d in zip(
            cell.differentiated(), gradients if isinstance(cell, MobileViT) else gradients[1], strict=True
        ):
            pieces = np.split(d.asnumpy().ravel(), np.cumsum([p.size for p in part])[:-1])
            values |= {f"d {p.name}": piece.reshape(p.shape) for p, piece in zip(part, pieces, strict=True)}
    else:
        values |= {f"d {p.name}": g.asnumpy() for p, g in zip(graph.parameters, gradients[1], strict=True)}
    return values | {p.name: p.asnumpy() for p in cell.get_parameters() if "moving" in p.name}


def maps(batch, height, width, channels, scale=1.0):
    x = np.random.default_rng(1).normal(size=(batch, height, width, channels)) + 0.3
    return (scale * x).astype(np.float32)


def assert_alike(fused, plain, *, channels_last=True, rel=2e-5):
    """Relative L2 norm of each difference; plain maps are channels-first."""
    assert fused.keys() == plain.keys()
    largest = max((np.linalg.norm(value) for name, value in plain.items() if name.startswith("d ")), default=0.0)
    for name, value in plain.items():
        if channels_last and value.ndim == 4 and name in ("y", "dx"):
            value = value.transpose(0, 2, 3, 1)
        assert fused[name].shape == value.shape, name
        # Some gradients are 0 but for rounding, such as those of a bias before a BatchNorm.
        scale = max(np.linalg.norm(value), 0.01 * largest if name.startswith("d ") else 0.0)
        assert np.linalg.norm(fused[name] - value) <= rel * scale, name


def both(ms, fused, plain, x, *rest, y_shape, training=True):
    """The outcomes of two forms of a cell of feature maps; `y_shape` is the output's, channels-last."""
    weights = np.random.default_rng(9).normal(size=y_shape).astype(np.float32)
    plain_weights = weights.transpose(0, 3, 1, 2) if weights.ndim == 4 else weights
    return (
        outcome(ms, fused, x, *rest, weights=weights, training=training),
        outcome(ms, plain, x.transpose(0, 3, 1, 2), *rest, weights=plain_weights, training=training),
    )


def strided(shape, stride, outputs):
    return shape[0], -(-shape[1] // stride), -(-shape[2] // stride), outputs


@pytest.mark.mindspore
@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize(
    ("kernel", "stride", "shape", "outputs"),
    [
        (1, 1, (2, 8, 8, 16), 32),
        (1, 1, (1, 5, 7, 33), 19),  # no vector is full at its end
        (3, 1, (2, 8, 8, 24), 40),
        (3, 1, (2, 1, 1, 5), 3),
        (3, 1, (3, 33, 17, 6), 10),
        (3, 2, (2, 9, 12, 3), 16),
        (3, 2, (1, 64, 64, 3), 16),
    ],
)
def test_conv_norm_is_the_plain_one(mindspore, kernels, kernel, stride, shape, outputs, training):
    from mvit.models import layers
    from mvit.models.kernels import network

    arguments = {"kernel_size": kernel, "stride": stride}
    form = network.ConvNorm if stride == 1 else network.Stem
    fused, plain = both(
        mindspore,
        form(shape[-1], outputs, **arguments),
        layers.ConvNorm(shape[-1], outputs, **arguments),
        maps(*shape),
        y_shape=strided(shape, stride, outputs),
        training=training,
    )
    if form is network.Stem:  # has no gradient of the images
        plain.pop("dx", None)
    assert_alike(fused, plain)


@pytest.mark.mindspore
@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize(
    ("stride", "shape", "outputs", "expansion"),
    [
        (1, (2, 8, 8, 16), 16, 2),  # with residual
        (1, (2, 6, 10, 16), 24, 4),
        (2, (2, 8, 8, 24), 48, 2),
        (2, (1, 7, 9, 5), 11, 3),  # odd sides
        (2, (3, 2, 2, 16), 16, 2),
        (1, (1, 1, 1, 8), 8, 2),
        (2, (2, 1, 1, 16), 16, 2),  # as many pixels as before: the stride alone says that there is no residual
        (2, (2, 1, 5, 16), 16, 2),
    ],
)
def test_an_inverted_residual_is_the_plain_one(mindspore, kernels, stride, shape, outputs, expansion, training):
    from mvit.models import mobilevit
    from mvit.models.kernels import network

    arguments = {"stride": stride, "expansion": expansion}
    fused, plain = both(
        mindspore,
        network.InvertedResidual(shape[-1], outputs, **arguments),
        mobilevit.InvertedResidual(shape[-1], outputs, **arguments),
        maps(*shape),
        y_shape=strided(shape, stride, outputs),
        training=training,
    )
    if training and np.prod(shape[:3]) == 1:  # the variance of one pixel: NaN in MindSpore, kept finite here
        for values in (fused, plain):
            for name in [name for name in values if name.endswith("moving_variance")]:
                del values[name]
    # BatchNorm of very few pixels divides by differences of rounded numbers.
    assert_alike(fused, plain, rel=2e-5 if shape[1] > 2 else 2e-3)


@pytest.mark.mindspore
@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize(
    ("rows", "tokens", "features", "hidden", "heads"),
    [(8, 16, 64, 128, 4), (3, 100, 24, 36, 4), (5, 1, 16, 20, 2), (2, 7, 9, 11, 3), (130, 3, 8, 8, 1)],
)
def test_a_transformer_layer_is_the_plain_one(
    mindspore, kernels, rows, tokens, features, hidden, heads, training
):  # fmt: skip
    from mvit.models import mobilevit
    from mvit.models.kernels import network

    arguments = {"hidden": hidden, "heads": heads, "dropout": 0.2, "eps": 1e-5, "salt": 4}
    x = maps(rows, tokens, 1, features)[:, :, 0]
    weights = np.random.default_rng(9).normal(size=x.shape).astype(np.float32)
    key = mindspore.Tensor(KEY, mindspore.int32)
    forms = network.TransformerLayer(features, **arguments), mobilevit.TransformerLayer(features, **arguments)
    fused, plain = (outcome(mindspore, form, x, key, weights=weights, training=training) for form in forms)
    assert_alike(fused, plain, channels_last=False)


def networks():
    """Every two of size, projection and side meet; .ci/run has one of the default size."""
    yield "xx_small", "linear", 45
    yield pytest.param("xx_small", "conv_norm_silu", 64, marks=pytest.mark.long)
    yield pytest.param("x_small", "linear", 64, marks=pytest.mark.long)
    yield pytest.param("x_small", "conv_norm_silu", 45, marks=pytest.mark.long)
    yield pytest.param("small", "linear", 45, marks=pytest.mark.long)
    yield pytest.param("small", "conv_norm_silu", 64, marks=pytest.mark.long)


@pytest.mark.mindspore
@pytest.mark.parametrize(("size", "projection", "side"), list(networks()))
def test_the_network_is_the_plain_one(mindspore, load_model, size, projection, side):
    from mvit.models import mobilevit
    from mvit.models.kernels import network, operators

    operators.open_library(build.library(build.this_cpu()[0]), threads=2)
    model = load_model(size, token_projection=projection)
    x = maps(4, side, side, 3)
    key = mindspore.Tensor(KEY, mindspore.int32)
    for training in (True, False):
        forms = network.MobileViT(model, num_classes=10), mobilevit.MobileViT(model, num_classes=10)
        assert [p.name for p in forms[0].get_parameters()] == [p.name for p in forms[1].get_parameters()]
        fused, plain = both(mindspore, *forms, x, key, y_shape=(4, 10), training=training)
        if training:  # the fused stem has no gradient of the images
            del plain["dx"]
        assert_alike(fused, plain, rel=1e-4)


def rounded(x):
    """To bfloat16, ties to even, as its bits."""
    words = np.ascontiguousarray(x).view(np.uint32)
    return np.where(np.isnan(x), words | 0x400000, words + 0x7FFF + ((words >> 16) & 1)).astype(np.uint32) >> 16


@pytest.mark.mindspore
@pytest.mark.parametrize(("kernel", "shape", "outputs"), [(1, (2, 5, 7, 33), 19), (3, (2, 9, 6, 8), 16)])
def test_maps_are_kept_as_the_nearest_bfloat16(mindspore, kernel, shape, outputs):
    from mvit.models.kernels import network

    x = maps(*shape)
    x[0, 1, 2] = np.nan
    x[1, 3, 4], x[1, 3, 5], x[1, 4, 4] = 1e38, np.inf, 1e-40
    kept = []
    for activations in ("fp32", "bf16"):
        open_library(activations)
        cell = network.ConvNorm(shape[-1], outputs, kernel_size=kernel)
        fill(mindspore, cell)
        kept.append(cell.in_training(mindspore.Tensor(x), *cell.parameters, cell.constants)[1].asnumpy())
    exact, bf16 = kept
    assert (exact.dtype, bf16.dtype) == (np.float32, np.uint16)
    numbers = ~np.isnan(exact)
    np.testing.assert_array_equal(bf16[numbers], rounded(exact)[numbers])
    assert np.isnan((bf16[~numbers].astype(np.uint32) << 16).view(np.float32)).all()


@pytest.mark.mindspore
@pytest.mark.parametrize("name", ["conv_norm", "inverted_residual", "strided"])
def test_gradients_of_maps_kept_as_bfloat16_are_off_by_their_rounding(mindspore, name):
    from mvit.models.kernels import network

    shape, stride, outputs = (4, 12, 10, 24), 2 if name == "strided" else 1, 24
    if name == "conv_norm":
        form, arguments = network.ConvNorm, {"kernel_size": 3}
    else:
        form, arguments = network.InvertedResidual, {"stride": stride, "expansion": 2}
    weights = np.random.default_rng(9).normal(size=strided(shape, stride, outputs)).astype(np.float32)
    outcomes = []
    for activations in ("fp32", "bf16"):
        open_library(activations)
        cell = form(shape[-1], outputs, **arguments)
        outcomes.append(outcome(mindspore, cell, maps(*shape), weights=weights))
    exact, bf16 = outcomes
    assert_alike(bf16, exact, channels_last=False, rel=2**-6)
    assert not np.array_equal(bf16["y"], exact["y"])
    assert not np.array_equal(bf16["dx"], exact["dx"])


@pytest.mark.mindspore
def test_a_cell_with_a_frozen_norm_computes_in_its_plain_form(mindspore, kernels):
    from mvit.models import layers, mobilevit
    from mvit.models.kernels import network
    from mvit.worker.device import freeze

    residual = {"stride": 1, "expansion": 2}
    pairs = (
        (network.ConvNorm(8, 12, kernel_size=3), layers.ConvNorm(8, 12, kernel_size=3), 12),
        (network.InvertedResidual(8, 8, **residual), mobilevit.InvertedResidual(8, 8, **residual), 8),
        (network.Stem(8, 4, kernel_size=3), layers.ConvNorm(8, 4, kernel_size=3), 4),
    )
    for fused, plain, num_channels in pairs:
        for cell in (fused, plain):
            freeze(cell, ["depthwise.norm.*" if num_channels == 8 else "norm.*"])
        fused, plain = both(mindspore, fused, plain, maps(2, 6, 6, 8), y_shape=(2, 6, 6, num_channels))
        if "dx" not in fused:  # the stem's
            del plain["dx"]
        assert_alike(fused, plain)


@pytest.mark.mindspore
@pytest.mark.parametrize("scale", [1e-30, 1e-38, 1e-42])
def test_tiny_values_are_those_of_the_plain_form(mindspore, kernels, scale):
    from mvit.models import layers
    from mvit.models.kernels import network

    fused, plain = both(
        mindspore,
        network.ConvNorm(8, 12, kernel_size=1),
        layers.ConvNorm(8, 12, kernel_size=1),
        maps(2, 6, 6, 8, scale=scale),
        y_shape=(2, 6, 6, 12),
        training=False,
    )
    assert_alike(fused, plain)


@pytest.mark.mindspore
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_value_that_is_not_finite_reaches_the_output(mindspore, kernels, load_model, tiny, value):
    from mvit.models.kernels import network

    net = network.MobileViT(tiny, num_classes=10)
    x = maps(2, 32, 32, 3)
    x[1, 3, 4, 1] = value
    net.set_train(False)
    logits = net(mindspore.Tensor(x), mindspore.Tensor(KEY, mindspore.int32)).asnumpy()
    assert np.isfinite(logits[0]).all()
    assert not np.isfinite(logits[1]).any()


@pytest.mark.mindspore
def test_images_are_normalised_as_in_the_plain_form(mindspore, kernels):
    from mvit.config import DigitsData
    from mvit.worker.images import Normalise

    data = DigitsData(
        kind="digits", image_size=32, mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7), channel_order="bgr",
        eval_crop_fraction=1.0, interpolation="bilinear", antialias=True, workers=1,
    )  # fmt: skip
    images = mindspore.Tensor(np.random.default_rng(0).integers(0, 256, (2, 9, 11, 3)).astype(np.uint8))
    plain = Normalise(data)(images).asnumpy().transpose(0, 2, 3, 1)
    np.testing.assert_allclose(Normalise(data, channels_last=True)(images).asnumpy(), plain, rtol=1e-6, atol=1e-6)
