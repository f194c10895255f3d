import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from mvit.data import dataset
from mvit.models.spec import parameter_shapes
from mvit.parent.request.check import check, parse
from mvit.parent.request.launch_rules import data_rules, host_rules
from mvit.parent.request.rules import judge
from mvit.parent.request.weight_rules import conventions_of
from tests.conftest import raw_config
from tests.parent.test_plan import HOST

THEIRS = {"mean": [0.0, 0.0, 0.0], "channel_order": "bgr", "layer_norm_eps": 1e-07, "num_classes": 10}
SHAPES = parameter_shapes(parse(raw_config()).model, num_classes=10)


def problems(path, *overrides, start=False):

    asked = ["init=weights", f"init.checkpoint={path}"] if start else ["task=evaluate", f"task.checkpoint={path}"]
    sections, found = check(raw_config(*asked, *overrides))
    rules = [*host_rules(HOST), *data_rules(dataset.survey(sections["data"]).facts)]
    return [str(problem) for problem in (*found, *judge(rules, sections))]


@pytest.fixture(params=["imported", "checkpoint", "run"])
def weights(request, tmp_path):
    """Weights that say THEIRS, in each of the three places where they can."""
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    path = folder / "step-00000001.safetensors"
    imported = request.param == "imported"
    told = {key: json.dumps(value) for key, value in THEIRS.items()}
    tensors = {name: np.zeros(shape, np.float32) for name, shape in SHAPES.items()}
    save_file(tensors, path, {"format": "mvit", "library": '"timm"', **told} if imported else None)
    if not imported:
        path.with_suffix(".json").write_text(json.dumps({"conventions": THEIRS}))
        (folder / "best.json").write_text('{"file": "step-00000001"}')
    return tmp_path if request.param == "run" else path


def test_weights_are_refused_under_other_conventions_than_their_own(weights):
    assert problems(weights) == [
        "data.mean: '[0.313,0.313,0.313]' is not what the weights were trained with, [0.0,0.0,0.0];"
        " use data.mean=[0.0,0.0,0.0]",
        "data.channel_order: 'rgb' is not what the weights were trained with, bgr; use data.channel_order=bgr",
        "model.layer_norm_eps: '1e-05' is not what the weights were trained with, 1e-07;"
        " use model.layer_norm_eps=1e-07",
    ]


def test_the_remedies_are_enough(weights):
    own = ("data.mean=[0.0,0.0,0.0]", "data.channel_order=bgr", "model.layer_norm_eps=1e-07")
    assert problems(weights, *own) == []
    (line,) = problems(weights, *own, "data=synthetic", "data.classes=3")
    assert line.endswith("has 10 classes, the data has 3; choose the data it was trained on")


@pytest.mark.parametrize("content", [b"", b"no weights"])
def test_a_file_that_says_nothing_is_not_refused_here(tmp_path, content):
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    assert conventions_of(path) == {}


OWN = ("data.mean=[0.0,0.0,0.0]", "data.channel_order=bgr", "model.layer_norm_eps=1e-07")


def test_training_may_start_from_other_classes_but_not_from_another_network(weights):
    assert problems(weights, *OWN, "data=synthetic", "data.classes=3", "data.std=[1.0,1.0,1.0]", start=True) == []
    (line,) = problems(weights, *OWN, "model=small", start=True)
    assert "is of another network than model=small: stem.conv.weight" not in line
    assert "is of another network than model=small: stages.0.0.expand" in line
    (line,) = problems(weights, *OWN, "model=small")
    assert "is of another network" in line


def test_averaged_weights_are_asked_for_only_where_there_are_some(weights):
    (line,) = problems(weights, *OWN, "task.weights=ema")
    assert line.endswith("use task.weights=raw")


def test_a_torn_file_is_one_line(tmp_path):
    path = tmp_path / "x.safetensors"
    path.write_bytes(b"no weights")
    (line,) = problems(path)
    assert line.endswith("cannot be read: it is torn, or no .safetensors; name another one")
