import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from mvit.check import check, judge
from mvit.launch.conventions import conventions_of
from mvit.launch.plan import data_rules, host_rules
from tests.conftest import raw_config
from tests.launch.test_plan import HOST

THEIRS = {"mean": [0.0, 0.0, 0.0], "channel_order": "bgr", "layer_norm_eps": 1e-07, "num_classes": 10}


def problems(path, *overrides):
    from mvit.data import dataset

    sections, found = check(raw_config("task=evaluate", f"task.checkpoint={path}", *overrides))
    rules = [*host_rules(HOST), *data_rules(dataset.look(sections["data"]))]
    return [str(problem) for problem in (*found, *judge(rules, sections))]


@pytest.fixture(params=["imported", "checkpoint", "run"])
def weights(request, tmp_path):
    """Weights that say THEIRS, in each of the three places where they can."""
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    path = folder / "step-1.safetensors"
    imported = request.param == "imported"
    told = {key: json.dumps(value) for key, value in THEIRS.items()}
    save_file({"a": np.zeros(1)}, path, {"format": "mvit", "library": '"timm"', **told} if imported else None)
    if not imported:
        path.with_suffix(".json").write_text(json.dumps({"conventions": THEIRS}))
        (folder / "best.json").write_text('{"file": "step-1"}')
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
