"""mvit.models.spec: names, counts and multiply-accumulates, held against timm and against the real network."""

import math
import subprocess
import sys

import pytest

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
