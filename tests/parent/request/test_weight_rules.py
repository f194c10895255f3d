import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from mvit.data import dataset
from mvit.models.spec import parameter_shapes
from mvit.parent.request.check import check, parse
from mvit.parent.request.launch_rules import WEIGHT_RULES, data_rules
from mvit.parent.request.rules import judge
from mvit.parent.request.weight_rules import conventions_of, differences
from mvit.rundir.checkpoints import Checkpoint
from mvit.rundir.sidecar import Conventions, Position
from tests.conftest import CONVENTIONS, raw_config, sidecar

THEIRS = {"mean": [0.0, 0.0, 0.0], "channel_order": "bgr", "layer_norm_eps": 1e-07, "num_classes": 10}
THEIRS["eval_crop_fraction"] = 0.9
SHAPES = parameter_shapes(parse(raw_config()).model, num_classes=10)


def requested(path, *overrides, start=False):
    return raw_config(*(["init=weights", f"init.checkpoint={path}"] if start else evaluating(path)), *overrides)


def evaluating(path):
    return ["task=evaluate", f"task.checkpoint={path}"]


def problems(path, *overrides, start=False):
    sections, found = check(requested(path, *overrides, start=start))
    rules = [*WEIGHT_RULES, *data_rules(dataset.survey(sections["data"]).facts)]
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
        theirs = {**CONVENTIONS.model_dump(mode="json"), **THEIRS, "std": [0.35, 0.35, 0.35]}
        conventions = Conventions.model_validate(theirs)
        Checkpoint(folder, 1).write_sidecar(sidecar(Position(step=1), conventions=conventions))
        (folder / "best.json").write_text('{"file": "step-00000001"}')
    return tmp_path if request.param == "run" else path


def test_weights_bring_the_conventions_they_were_trained_with(weights):
    raw = requested(weights)
    assert (raw["data"]["mean"], raw["data"]["channel_order"]) == ([0.0, 0.0, 0.0], "bgr")
    assert (raw["data"]["eval_crop_fraction"], raw["model"]["layer_norm_eps"]) == (0.9, 1e-07)
    assert raw["data"]["std"] == [0.35, 0.35, 0.35], "what they do not say is that of conf/"
    assert problems(weights) == []
    assert list(differences(parse(raw))) == []


def test_what_a_person_chose_wins_and_is_said(weights):
    config = parse(requested(weights, "data.mean=[0.5,0.5,0.5]", "model.layer_norm_eps=1e-5"))
    assert (config.data.mean, config.model.layer_norm_eps) == ((0.5, 0.5, 0.5), 1e-5)
    assert list(differences(config)) == [
        "data.mean=[0.5,0.5,0.5], the weights were trained with [0.0,0.0,0.0]",
        "model.layer_norm_eps=1e-05, the weights were trained with 1e-07",
    ]


def test_classes_that_differ_are_refused(weights):
    (line,) = problems(weights, "data=synthetic", "data.classes=3")
    assert line.endswith("has 10 classes, the data has 3; choose the data it was trained on")


def test_training_takes_network_and_normalisation_and_crops_as_it_likes(weights):
    raw = requested(weights, start=True)
    assert (raw["data"]["mean"], raw["model"]["layer_norm_eps"]) == ([0.0, 0.0, 0.0], 1e-07)
    assert raw["data"]["eval_crop_fraction"] == 1.0


@pytest.mark.parametrize("content", [b"", b"no weights"])
def test_a_file_that_says_nothing_is_not_refused_here(tmp_path, content):
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    assert conventions_of(path) == {}


def test_a_sidecar_that_was_edited_says_nothing(tmp_path):
    checkpoint = Checkpoint(tmp_path, 1)
    checkpoint.write_sidecar(sidecar(Position(step=1)))
    assert conventions_of(checkpoint.tensors)["channel_order"] == "bgr"
    checkpoint.sidecar.write_text(checkpoint.sidecar.read_text().replace("bgr", "rgb"))
    assert conventions_of(checkpoint.tensors) == {}


def test_training_may_start_from_other_classes_but_not_from_another_network(weights):
    assert problems(weights, "data=synthetic", "data.classes=3", "data.std=[1.0,1.0,1.0]", start=True) == []
    (line,) = problems(weights, "model=small", start=True)
    assert "is of another network than model=small: stem.conv.weight" not in line
    assert "is of another network than model=small: stages.0.0.expand" in line
    (line,) = problems(weights, "model=small")
    assert "is of another network" in line


def test_averaged_weights_are_asked_for_only_where_there_are_some(weights):
    (line,) = problems(weights, "task.weights=ema")
    assert line.endswith("use task.weights=raw")


def test_a_torn_file_is_one_line(tmp_path):
    path = tmp_path / "x.safetensors"
    path.write_bytes(b"no weights")
    (line,) = problems(path)
    assert line.endswith("cannot be read: torn, or not a .safetensors file; name another one")
