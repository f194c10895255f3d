"""Requests: what compose and override make of words, and every problem at once."""

import os

import pytest

from mvit.errors import ConfigError
from mvit.parent.request import command_line
from mvit.parent.request.check import parse
from mvit.parent.request.compose import Composer, compose, override, override_sweep


def lines(*overrides):
    """What is wrong with a request, its data unseen."""
    try:
        parse(compose(overrides))
    except ConfigError as error:
        return [str(problem) for problem in error.problems]
    return []


def test_problems_of_groups_keys_values_and_rules_come_together():
    words = ("model=x_smal", "trian.epochs=2", "optimzer.lr=1", "train.eval_batch_size=0", "seed=1,2", "runs_dir=~")
    assert lines(*words, "precision=bf16") == [
        "model: 'x_smal' is not an option; did you mean x_small?",
        "seed: '1,2' has several values; add -m to try each of them, or quote it",
        "runs_dir=~: has a character that must be quoted twice; write \"runs_dir='value'\"",
        "trian.epochs: unknown key; did you mean train.epochs?",
        "optimzer.lr: unknown key; did you mean optimizer.lr?",
        "train.eval_batch_size: 0 must be greater than or equal to 1; images per evaluation step, per device",
        "precision: 'bf16' does not run on a CPU; use precision=fp32 or an Ascend topology",
    ]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["lr=1e-3"], "lr: unknown key; did you mean optimizer.lr?"),
        (["epochs=3"], "epochs: unknown key; did you mean train.epochs?"),
        (["batch_size=64"], "batch_size: unknown key; did you mean train.global_batch_size?"),
        (["optimizer.learning_rate=1"], "optimizer.learning_rate: unknown key; did you mean optimizer.lr?"),
        (["train.lr=1"], "train.lr: unknown key; did you mean optimizer.lr?"),
        (["optimizer.zzz=1"], "optimizer.zzz: unknown key; use one of: optimizer.beta1, optimizer.beta2"),
        (["qqqq=1"], "qqqq: unknown key; use one of: augment, data, dry_run, freeze, init, launch, limits, loss_scale"),
        (["train=digit"], "train: 'digit' is not an option; did you mean digits?"),
        (
            ["optimizer=sgd", "optimizer.beta1=0.5"],
            "optimizer.beta1: not used by optimizer=sgd; remove it, or use optimizer=adamw, lion or lamb",
        ),
        (
            ["topology=cpu", "topology.jit_level=O2"],
            "topology.jit_level: not used by topology=cpu; remove it, or use topology=ascend_1, ascend_2x8, "
            "ascend_8 or ascend_8_O2",
        ),
        (["task.checkpoint=x"], "task.checkpoint: not used by task=train; remove it, or use task=evaluate"),
        (
            ["augment=trivialaugment", "augment.policy.magnitude=3"],
            "augment.policy.magnitude: not used by augment.policy.kind=trivialaugment; remove it",
        ),
        (
            ["loss_scale=fixed"],
            "loss_scale: 'fixed' has no effect with precision=fp32; remove it, or use precision=fp16",
        ),
        (
            ["precision=bf16", "topology=ascend_1", "loss_scale=dynamic"],
            "loss_scale: 'dynamic' has no effect with precision=bf16; remove it, or use precision=fp16",
        ),
    ],
)
def test_a_key_that_cannot_be_used_names_the_one_that_can(words, expected):
    (line,) = lines(*words)
    assert line.startswith(expected)


def test_what_evaluation_does_not_use_cannot_be_written():
    words = ("task=evaluate", "task.checkpoint=x", "optimizer=sgd", "optimizer.lr=9", "train.epochs=3", "seed=1")
    remedy = "not used by task=evaluate; remove it, or use task=train"
    others = {"optimizer": ", task=benchmark or task=profile", "optimizer.lr": ", task=benchmark or task=profile"}
    keys = ("optimizer", "optimizer.lr", "train.epochs", "seed")
    assert lines(*words) == [f"{key}: {remedy}{others.get(key, '')}" for key in keys]
    assert lines("task=evaluate", "task.checkpoint=x", "experiment=cvnets_xx_small") == [
        "experiment: 'cvnets_xx_small' sets augment, not used by task=evaluate; remove it, or use task=train"
    ]


def test_an_option_that_is_nearly_right_does_not_hide_what_is_wrong_with_its_values():
    assert lines("model=x_smal", "model.heads=5")[1:] == lines("model=x_small", "model.heads=5") != []
    (line,) = lines("data=nothing", "data.root=/x")
    assert line.startswith("data: 'nothing' is not an option; use one of: cifar10,")


@pytest.mark.parametrize(
    "text",
    [
        "train.freeze=['stem.*']",
        "train.freeze=[stem.*,'stages.0.*']",
        "train.buckets=[{image_size: 48, global_batch_size: 48},{image_size: 64, global_batch_size: 24}]",
        "optimizer.lr=1e-3",
        "train.max_steps=null",
        "train.clip_norm=1.5",
        "name='again'",
        'name="again"',
        "data.mean=[0,0.5,1e-1]",
        "augment.policy={kind: randaugment, num_ops: 2, magnitude: 9}",
        "++train.epochs=7",
        "dry_run=true",
        "name=${data.kind}-again",
    ],
)
def test_a_fork_reads_a_value_exactly_as_a_launch(configured, text):
    made = configured("train.max_steps=3")
    assert parse(override(made, [text])) == parse(compose(["train.max_steps=3", text])) != made


def test_paths_are_those_of_the_directory_in_which_they_are_typed(configured, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    predict = ["task=predict", "task.checkpoint=x.safetensors"]
    assert compose([*predict, "data.images=pics/val"])["data"]["images"] == f"{tmp_path}/pics/val"
    assert compose([*predict, "data.images=[-,a.jpg,b/*.png,/c]"])["data"]["images"] == [
        "-",
        f"{tmp_path}/a.jpg",
        f"{tmp_path}/b/*.png",
        "/c",
    ]
    ascend = compose(["topology=ascend_8", "topology.rank_table=ranks.json"])["topology"]
    assert ascend["rank_table"] == f"{tmp_path}/ranks.json"
    made = configured("data=imagefolder", "data.root=pics")
    monkeypatch.chdir("/")
    forked = override(made, ["data.class_names=names.txt"])["data"]
    assert (forked["root"], forked["class_names"]) == (f"{tmp_path}/pics", "/names.txt")


def test_a_relative_path_that_is_frozen_is_not_changed_by_reopening_it(configured):
    made = configured("task=predict", "task.checkpoint=x.safetensors", "data.images=pics")
    made = made.model_copy(update={"data": made.data.model_copy(update={"images": ("pics",)})})
    assert override(made, ["verbose=true"])["data"]["images"] == ["pics"]


@pytest.mark.parametrize(
    "text", ["train.clip_norm=true", "train.freeze=stem", "seed=1.0", "data.mean=[a,b]", "seed=1,2"]
)
def test_a_fork_refuses_a_value_with_the_words_of_a_launch(configured, text):
    with pytest.raises(ConfigError) as refused:
        override(configured(), [text])
    assert [str(problem) for problem in refused.value.problems] == lines(text) != []


def test_a_fork_refuses_groups_and_unknown_keys_at_once(configured):
    with pytest.raises(ConfigError) as refused:
        override(configured(), ["model=small", "optimzer.lr=1", "train.epochs=x", "~seed", "lr"])
    assert [str(problem).partition(";")[0] for problem in refused.value.problems] == [
        "lr: has no value",
        "model=small: groups can be chosen only at launch",
        "~seed: keys can be removed only at launch",
        "optimzer.lr: unknown key",
        "train.epochs: 'x' must be a valid integer",
    ]


def test_paths_of_a_sweep_are_those_of_the_directory_in_which_they_are_typed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    grid = Composer().sweep(["sweep.trials=@trials.csv"])
    search = Composer().sweep(["sweep=search", "sweep.start_from=[runs/a,/b]"])
    monkeypatch.chdir("/")
    assert grid.model_dump()["trials"] == f"@{tmp_path}/trials.csv"
    assert search.model_dump()["start_from"] == (f"{tmp_path}/runs/a", "/b")
    assert override_sweep(search, ["sweep.start_from=[c]"]).model_dump()["start_from"] == ("/c",)


def test_an_experiment_with_its_own_sweep_is_one():
    assert Composer().is_sweep(["experiment=seeds"])
    assert Composer().is_sweep(["hydra.mode=MULTIRUN"])
    assert not Composer().is_sweep(["experiment=smoke"])
    assert not Composer().is_sweep(["seed=1,2"])


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--epochs", "3"], "--epochs: unknown flag; did you mean train.epochs=3?"),
        (["--lr=1e-3"], "--lr: unknown flag; did you mean optimizer.lr=1e-3?"),
        (["-lr", "1e-3"], "-lr: unknown flag; did you mean optimizer.lr=1e-3?"),
        (["--batch-size", "8"], "--batch-size: unknown flag; did you mean train.global_batch_size=8?"),
        (["--zzzz=1"], "--zzzz: unknown flag; write an option as train.epochs=3, without dashes"),
    ],
)
def test_a_flag_of_other_programs_gets_the_key_that_was_meant(words, expected):
    line = command_line.read([*words, "seed=2"])
    assert ([str(problem) for problem in line.problems], line.overrides) == ([expected], ("seed=2",))


def test_the_trials_of_a_sweep_do_not_see_edits_of_the_files(tmp_path):
    (tmp_path / "experiment").mkdir()
    file = tmp_path / "experiment" / "mine.yaml"
    file.write_text("# @package _global_\nseed: 1\n")
    composer = Composer((tmp_path,))
    first = composer.compose(["experiment=mine", "train.epochs=2"])
    file.write_text("# @package _global_\nseed: 2\n")
    second = composer.compose(["experiment=mine", "train.epochs=3"])
    assert [(raw["seed"], raw["train"]["epochs"]) for raw in (first, second)] == [(1, 2), (1, 3)]


def test_flags_of_hydra_are_told_from_overrides_wherever_they_stand():
    line = command_line.read(["seed=1", "-m", "--config-dir", "here", "train.epochs=2", "-cd=there"])
    assert (line.flags, line.overrides) == (("-m",), ("seed=1", "train.epochs=2"))
    assert [str(folder) for folder in line.config_dirs] == ["here", "there"]
    assert (line.many, line.shows, line.problems) == (True, False, ())
    assert command_line.read(["--cfg", "job"]).shows
    assert command_line.read(["--config-pa=x"]).problems


@pytest.mark.parametrize("word", [os.fsdecode(b"data.root=caf\xe9"), os.fsdecode(b"data.root='caf\xe9'")])
def test_what_cannot_be_written_down_is_refused(word):
    with pytest.raises(ConfigError) as caught:
        Composer().compose(["data=imagefolder", word])
    (line,) = map(str, caught.value.problems)
    assert line.endswith("is not UTF-8; use a link with another name")
    line.encode()
