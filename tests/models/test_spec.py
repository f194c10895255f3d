"""mvit.models.spec: names, counts and multiply-accumulates, held against timm and against the real network."""

import math
import subprocess
import sys

import pytest

from mvit.config import LionConfig
from mvit.models import spec
from mvit.models.weights import SIZES


@pytest.mark.parametrize(("size", "count"), [("xx_small", 1_272_024), ("x_small", 2_317_848), ("small", 5_578_632)])
def test_the_three_sizes_have_as_many_parameters_as_in_timm(load_model, size, count):
    assert spec.count_parameters(load_model(size), num_classes=1000) == count


# Outputs of BatchNorm and of LayerNorm, counted by hooks on timm 1.0.20 at 256x256.
@pytest.mark.parametrize(
    ("size", "macs", "batch_norm", "layer_norm", "published"),
    [
        ("xx_small", 407_364_096, 4_022_272, 555_008, 0.42),
        ("x_small", 1_025_911_808, 11_046_912, 832_512, 1.05),
        ("small", 2_000_831_488, 13_058_048, 1_287_168, 2.03),
    ],
)
def test_macs_are_the_published_ones_less_normalisation(load_model, size, macs, batch_norm, layer_norm, published):
    counted = spec.count_macs(load_model(size), num_classes=1000, image_size=256)
    assert counted == macs
    # fvcore, which the published numbers come from, charges 2 for each output of BatchNorm and 5 of LayerNorm.
    assert round((counted + 2 * batch_norm + 5 * layer_norm) / 1e9, 2) == published


def test_macs_of_the_head_follow_the_number_of_classes(load_model):
    config = load_model("xx_small")
    ten, eleven = (spec.count_macs(config, num_classes=n, image_size=64) for n in (10, 11))
    assert eleven - ten == 320


def test_moving_statistics_are_listed_and_not_counted(tiny):
    shapes = spec.parameter_shapes(tiny, num_classes=3)
    assert shapes["stem.norm.moving_mean"] == shapes["stem.norm.moving_variance"] == (4,)
    statistics = sum(shape[0] for name, shape in shapes.items() if "moving" in name)
    everything = sum(math.prod(shape) for shape in shapes.values())
    assert spec.count_parameters(tiny, num_classes=3) == everything - statistics


@pytest.mark.parametrize(("image_size", "tokens"), [(256, 8 * 8), (272, 10 * 10)])
def test_an_odd_map_is_counted_at_the_size_it_is_enlarged_to(tiny, image_size, tokens):
    # 272 pixels leave a last map of 9x9, which patches of 2x2 do not divide.
    wider = tiny.model_copy(update={"hidden": (8, 8, 9)})
    narrow, wide = (spec.count_macs(config, num_classes=3, image_size=image_size) for config in (tiny, wider))
    assert wide - narrow == 2 * tiny.features[2] * tokens


def test_each_parameter_has_the_depth_of_its_stage(tiny):
    depths = {
        "stem.conv.weight": 0,
        "stages.0.0.expand.conv.weight": 1,
        "stages.4.0.project.norm.gamma": 5,
        "transformers.0.local.conv.weight": 3,
        "transformers.2.layers.0.attention.out.bias": 5,
        "final.norm.beta": 6,
        "head.weight": 7,
    }
    assert {name: spec.layer_of(name, tiny) for name in depths} == depths
    assert spec.num_layers(tiny) == 8
    listed = spec.parameter_shapes(tiny, num_classes=3)
    assert {spec.layer_of(name, tiny) for name in listed} == set(range(8))
    with pytest.raises(ValueError, match="encoder.weight is not a parameter of MobileViT"):
        spec.layer_of("encoder.weight", tiny)


@pytest.fixture
def lion():
    return LionConfig(
        kind="lion",
        lr=1e-3,
        lr_batch_size=None,
        weight_decay=0.1,
        decay_excludes="nothing",
        layer_decay=1.0,
        beta1=0.9,
        beta2=0.99,
    )


def test_layer_decay_slows_what_is_far_from_the_head(tiny, lion):
    names = ["stem.conv.weight", "transformers.0.norm.gamma", "head.weight"]
    assert spec.groups(names, lion, model=tiny) == ([1.0, 1.0, 1.0], [True, True, True])
    slower, _ = spec.groups(names, lion.model_copy(update={"layer_decay": 0.5}), model=tiny)
    assert slower == [0.5**7, 0.5**4, 1.0]


def test_norms_and_biases_are_the_one_dimensional_parameters(tiny, lion):
    shapes = spec.parameter_shapes(tiny, num_classes=3)
    trained = {name: shape for name, shape in shapes.items() if not name.endswith(spec.STATISTICS)}
    excluding = lion.model_copy(update={"decay_excludes": "norm_and_bias"})
    _, decays = spec.groups(list(trained), excluding, model=tiny)
    assert decays == [len(shape) > 1 for shape in trained.values()]


def test_spec_and_weights_load_no_mindspore():
    code = "import sys, mvit.models.spec, mvit.models.weights; sys.exit('mindspore' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.mindspore
@pytest.mark.usefixtures("mindspore")
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("projection", ["linear", "conv_norm_silu"])
def test_the_network_has_the_listed_parameters_in_the_listed_order(load_model, size, projection):
    from mvit.models.mobilevit import MobileViT

    config = load_model(size, token_projection=projection)
    built = {name: parameter.shape for name, parameter in MobileViT(config, num_classes=1000).parameters_dict().items()}
    listed = spec.parameter_shapes(config, num_classes=1000)
    assert built == listed
    assert list(built) == list(listed)
