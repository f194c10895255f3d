"""What a run takes from the run whose weights it evaluates or starts from."""

import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from mvit.parent.request.check import check
from mvit.parent.request.compose import compose
from mvit.parent.request.launch_rules import WEIGHT_RULES
from mvit.parent.request.rules import judge
from mvit.rundir.frozen import OtherVersion, read_run
from tests.conftest import raw_config

ORIGIN = ("model=x_small", "model.num_classes=10", "data=synthetic", "data.image_size=96", "data.mean=[0.1,0.2,0.3]")
ORIGIN = (*ORIGIN, "data.eval_crop_fraction=0.9", "data.interpolation=bicubic", "data.num_val=77")
MADE = raw_config(*ORIGIN)


@pytest.fixture
def origin(run_folder):
    """A run that has evaluated once."""
    folder = run_folder("origin", *ORIGIN)
    (folder.checkpoints / "best.json").write_text(json.dumps({"file": "step-00000001"}))
    (folder.checkpoints / "step-00000001.safetensors").write_bytes(b"")
    return folder


def evaluated(origin, *overrides):
    return raw_config("task=evaluate", f"task.checkpoint={origin.path}", *overrides)


def started(origin, *overrides):
    return raw_config("init=weights", f"init.checkpoint={origin.path}", *overrides)


def test_an_evaluation_is_of_the_network_and_the_data_of_its_run(origin):
    raw = evaluated(origin)
    assert (raw["model"], raw["data"]) == (MADE["model"], MADE["data"])
    assert raw["name"] == "x_small-synthetic"
    of_file = raw_config("task=evaluate", f"task.checkpoint={origin.checkpoints}/step-00000001.safetensors")
    assert (of_file["model"], of_file["data"]) == (MADE["model"], MADE["data"])


def test_a_value_on_the_command_line_wins_even_if_it_is_the_default(origin):
    raw = evaluated(origin, "data.workers=7", "data.eval_crop_fraction=1.0", "model.dropout=0.05")
    assert raw["data"] == {**MADE["data"], "workers": 7, "eval_crop_fraction": 1.0}
    assert raw["model"] == {**MADE["model"], "dropout": 0.05}


def test_another_data_set_is_seen_as_the_weights_want_it(origin):
    seen = ("mean", "std", "eval_crop_fraction", "interpolation", "image_size")
    assert evaluated(origin, "data=digits")["data"] == {
        **raw_config("data=digits")["data"],
        **{key: MADE["data"][key] for key in seen},
    }


def test_another_network_is_the_one_that_was_chosen(origin):
    assert evaluated(origin, "model=small")["model"] == raw_config("model=small")["model"]
    assert evaluated(origin, "model=xx_small")["model"]["name"] == "xx_small", "the default, but chosen"


def test_training_starts_from_the_network_and_keeps_its_own_data_and_head(origin):
    raw = started(origin)
    assert raw["model"] == {**MADE["model"], "num_classes": None}
    assert raw["data"] == {**raw_config()["data"], "mean": [0.1, 0.2, 0.3], "std": MADE["data"]["std"]}
    assert raw["optimizer"] == raw_config()["optimizer"]


def test_what_an_experiment_says_is_no_default(origin, tmp_path):
    (tmp_path / "experiment").mkdir()
    text = "# @package _global_\ndefaults:\n  - override /model: xx_small\n\ndata:\n  mean: [0.313, 0.313, 0.313]\n"
    (tmp_path / "experiment" / "mine.yaml").write_text(text)
    raw = compose(["experiment=mine", "init=weights", f"init.checkpoint={origin.path}"], [tmp_path])
    assert raw["model"]["name"] == "xx_small"
    assert raw["data"]["mean"] == [0.313, 0.313, 0.313]
    assert raw["data"]["std"] == MADE["data"]["std"]


def test_weights_that_name_their_network_choose_it(tmp_path):
    path = tmp_path / "imported.safetensors"
    images = {"channel_order": "bgr", "eval_crop_fraction": 0.9, "interpolation": "bicubic", "antialias": True}
    known = {"library": "timm", "model": "small", **images}
    metadata = {"format": "mvit", **{key: json.dumps(value) for key, value in known.items()}}
    save_file({"x": np.zeros(1, np.float32)}, path, metadata)
    raw = raw_config("task=evaluate", f"task.checkpoint={path}")
    assert raw["model"] == raw_config("model=small")["model"]
    assert raw["data"] == {**raw_config()["data"], **images}


def test_paths_are_frozen_absolute_since_a_run_may_be_executed_from_elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    raw = compose(["data=imagefolder", "data.root=pictures", "init=weights", "init.checkpoint=x.safetensors"])
    assert raw["data"]["root"] == str(tmp_path / "pictures")
    assert raw["init"]["checkpoint"] == str(tmp_path / "x.safetensors")


def test_a_prediction_has_the_preprocessing_and_the_class_names_of_its_run(origin):
    data = raw_config("task=predict", f"task.checkpoint={origin.path}", "data.images=photos", "data.workers=7")["data"]
    seen = ("mean", "std", "channel_order", "eval_crop_fraction", "interpolation", "antialias", "image_size")
    assert {key: data[key] for key in seen} == {key: MADE["data"][key] for key in seen}
    names = list(read_run(origin).plan.dataset.class_names)
    assert (data["kind"], data["class_names"], data["workers"]) == ("files", names, 7)


def test_weights_of_a_run_that_cannot_be_read_are_not_used_with_other_conventions(origin):
    content = json.loads(origin.run.read_text())
    origin.run.write_text(json.dumps({**content, "schema": content["schema"] - 1}))
    with pytest.raises(OtherVersion, match="use the .* that made it"):
        evaluated(origin)


@pytest.mark.parametrize("task", ["benchmark", "predict"])
def test_a_run_that_trained_nothing_is_refused_as_a_checkpoint(run_folder, tmp_path, task):
    (tmp_path / "a.png").write_bytes(b"")
    of_predict = ("task.checkpoint=x.safetensors", f"data.images={tmp_path}/a.png", "data.class_names=[cat]")
    folder = run_folder("other", f"task={task}", *(of_predict if task == "predict" else ()))
    sections, problems = check(evaluated(folder))
    lines = [str(problem) for problem in (*problems, *judge(WEIGHT_RULES, sections))]
    assert len(lines) == 1
    assert "is not a run folder with a best checkpoint" in lines[0]
