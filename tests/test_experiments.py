"""The files of experiments/: what each says, and the recipes against the published ones."""

import json
import re
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest

from mvit.parent.request.check import parse
from tests.conftest import CHECKOUT, raw_config

FOLDER = CHECKOUT / "experiments"
NAMES = sorted(path.stem for path in FOLDER.glob("*.yaml"))
STEPS = sorted(path.stem for path in (FOLDER / "mindcv_to_cvnets").glob("*.yaml"))
RECIPES = json.loads((Path(__file__).parent / "published_recipes.json").read_text())
FILLED = ("data.root=/imagenet", "init.checkpoint=weights.safetensors")


@cache
def composed(*overrides: str):
    """The configuration of an experiment, with what a person must fill in."""
    raw = raw_config(*overrides)
    filled = [text for text in FILLED if (key := text.partition("=")[0].split("."))[1] in raw[key[0]]]
    return raw_config(*overrides, *filled)


def flat(value, prefix=""):
    if not isinstance(value, dict):
        return {prefix: value}
    return {path: v for key, inner in value.items() for path, v in flat(inner, f"{prefix}.{key}".lstrip(".")).items()}


def value_at(raw, path: str):
    for key in path.split("."):
        raw = raw[key]
    return raw


@pytest.mark.parametrize("name", NAMES)
def test_an_experiment_composes_is_legal_and_says_why_it_is_made(name):
    text = (FOLDER / f"{name}.yaml").read_text()
    published = name.startswith(("reproduce", "cvnets", "mindcv"))
    for part in ("question", "command", "cost", "expected", *(["source"] if published else [])):
        assert re.search(rf"^# {part}: +\S", text, re.MULTILINE), f"no {part}"
    assert f"experiment={name}" in text
    assert parse(composed(f"experiment={name}"))
    assert f"({name}.yaml)" in (FOLDER / "README.md").read_text()


@pytest.mark.parametrize("name", [name for name in RECIPES if name != "columns"])
def test_a_recipe_has_every_published_value(name):
    raw = composed(f"experiment={name}")
    config = parse(raw)
    wrong = []
    for key, published, path, expected in RECIPES[name]["values"]:
        found = value_at(raw, path)
        if found != expected:
            wrong.append(f"{path}: {found}, published {key} = {published}")
    assert not wrong
    said = {path for _, _, path, _ in RECIPES[name]["values"]}
    parts = ("model", "data", "augment", "optimizer", "schedule", "train", "loss_scale", "precision")
    unsaid = {
        path for path in flat(raw) if path.split(".")[0] in parts and not any(path.startswith(one) for one in said)
    }
    # What is not of the recipe: where things are, how often one looks, what is kept.
    assert unsaid <= {
        *("data.root", "data.train_folder", "data.val_folder", "data.on_unreadable", "data.class_names"),
        *("train.max_steps", "train.accumulation", "train.log_every_steps", "train.eval_every_epochs"),
        *("train.eval_batch_size", "train.checkpoint_every_steps", "train.keep_last", "train.keep_best"),
        *("train.max_restarts", "data.workers", "model.kernels", "train.activations"),
    }
    assert config.name == name


@pytest.mark.parametrize("recipe", ["reproduce", "cvnets"])
@pytest.mark.parametrize("size", ["x_small", "small"])
def test_a_recipe_of_another_size_differs_in_its_model_and_warm_up_alone(recipe, size):
    smallest, other = (flat(composed(f"experiment={recipe}_{name}")) for name in ("xx_small", size))
    changed = {path for path in smallest.keys() | other.keys() if smallest.get(path) != other.get(path)}
    assert {path for path in changed if not path.startswith("model.")} <= {"name", "schedule.warmup"}


def test_the_walk_begins_at_mindcvs_recipe_and_ends_at_the_authors():
    def step(name):
        raw = flat(composed("experiment=mindcv_to_cvnets", f"+experiment/mindcv_to_cvnets={name}"))
        assert raw["name"] == "mindcv_to_cvnets"
        assert flat(composed(f"experiment=mindcv_to_cvnets/{name}")) == raw, "alone it is the same experiment"
        return {path: value for path, value in raw.items() if path not in ("name", "seed", "train.keep_last")}

    def of(name):
        raw = flat(composed(f"experiment={name}"))
        return {path: value for path, value in raw.items() if path not in ("name", "seed", "train.keep_last")}

    steps = [step(name) for name in STEPS]
    assert steps[0] == {**of("reproduce_xx_small"), "topology.jit_level": "O1"}
    assert steps[-1] == of("cvnets_xx_small")
    sections = [
        {path.split(".")[0] for path in {*before, *after} if before.get(path) != after.get(path)}
        for before, after in pairwise(steps)
    ]
    assert all(sections), "a step that changes nothing"
    text = (FOLDER / "mindcv_to_cvnets.yaml").read_text()
    assert ",".join(STEPS) in text


def test_published_results_name_recipes_that_exist_and_numbers_that_make_sense():
    published = json.loads((FOLDER / "published.json").read_text())
    keys = {"model", "source", "recipe", *published["units"], "cards", "device", "jit_level", "version"}
    for row in published["results"]:
        assert set(row) == keys
        assert row["recipe"] is None or row["recipe"] in NAMES
        assert row["acc1"] is None or 60 < row["acc1"] < (row["acc5"] or 100)
        if row["images_per_s"]:  # the speed and the time of a step must agree
            speed = row["batch_size"] * row["cards"] / row["ms_per_step"] * 1e3
            assert row["images_per_s"] == pytest.approx(speed, rel=1e-3)
