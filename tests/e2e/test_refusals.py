"""Wrong requests: one clear line for each problem, exit code 2, nothing left behind."""

import os
import sys

import pytest

import launch as launch_script
from mvit.cli import main
from tests.conftest import CHECKOUT, Launched, launcher
from tests.data.test_dataset import make_folder

EXPERIMENTS = ", ".join(sorted(path.stem for path in (CHECKOUT / "experiments").glob("*.yaml")))


@pytest.fixture
def launch(tmp_path_factory, monkeypatch, capfd):
    """launch.py in this process: a refusal must come before any process is started."""

    def start(*overrides):
        room = tmp_path_factory.mktemp("launch")
        monkeypatch.chdir(room)
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{room}/mlflow.db")
        monkeypatch.setattr(sys, "argv", ["launch.py", f"runs_dir={room}/runs", *overrides])
        code = launch_script.main()
        out, err = capfd.readouterr()
        return Launched(code, out, err, room / "runs")

    return start


def refused(done, *lines):
    assert done.code == 2, done.out + done.err
    assert done.err.splitlines() == [f"mvit: {line}" for line in lines]
    assert done.out == ""
    assert not done.runs.exists()
    assert list(done.runs.parent.iterdir()) == []


@pytest.mark.parametrize(
    ("overrides", "lines"),
    [
        (["optimizer.lrr=1"], ["optimizer.lrr: is no key of the configuration; did you mean optimizer.lr?"]),
        (
            ["train.epochs=three", "seed=x"],
            [
                "seed: 'x' is refused: input should be a valid integer; seeds initial weights, order of images,"
                " augmentation and dropout",
                "train.epochs: 'three' is refused: input should be a valid integer; passes over the training images",
            ],
        ),
        (
            ["topology=cpu_2", "train.global_batch_size=33"],
            ["train.global_batch_size: 33 does not split over 2 devices; use 32 or 34"],
        ),
        (
            ["model.num_classes=12"],
            ["model.num_classes: 12 is not the number of classes of digits, 10; use 10, or null"],
        ),
        (
            ["data=imagefolder", "data.root=/nowhere"],
            ["data.root: '/nowhere' does not exist; set it to the directory that holds train and val"],
        ),
        (
            ["precision=bf16"],
            ["precision: 'bf16' does not run on a CPU; use precision=fp32 or an Ascend topology"],
        ),
        (
            ["topology=ascend_8"],
            [
                "topology: asks for 8 Ascend cards a machine, this one has 0;"
                " use topology=cpu, or dry_run=true to see the plan"
            ],
        ),
        (["model=huge"], ["model: 'huge' is no option of the group; use one of: small, x_small, xx_small"]),
        (["model=xx_smal"], ["model: 'xx_smal' is no option of the group; did you mean xx_small?"]),
        (["data=imagefolder"], ["data.root: has no value; set data.root=..."]),
        (["experiment=nothing"], [f"experiment: 'nothing' is no option of the group; use one of: {EXPERIMENTS}"]),
        (["optimizer.lr"], None),
        (["optimizer.lr=[1,"], None),
        (["name=${nothing}"], None),
        (
            ["task=evaluate", "task.checkpoint=/nowhere.safetensors"],
            [
                "task.checkpoint: '/nowhere.safetensors' does not exist;"
                " name a .safetensors file or the folder of a finished run"
            ],
        ),
    ],
)
def test_a_wrong_request_is_refused(launch, overrides, lines):
    done = launch(*overrides)
    if lines is not None:
        refused(done, *lines)
        return
    assert done.code == 2
    assert len(done.err.strip().splitlines()) == 1, done.err
    assert "Traceback" not in done.err
    assert not done.runs.exists()


def test_a_value_that_must_be_quoted_is_told_how(launch):
    refused(
        launch("data=imagefolder", "data.root=~/images"),
        "data.root=~/images: has a character that must be quoted twice; write \"key='value'\"",
    )


def test_plans_of_a_sweep_are_no_failure(launch):
    done = launch("-m", "seed=1,2", "dry_run=true")
    assert done.code == 0
    assert "FAILED" not in done.out
    assert not done.runs.exists()


def test_an_unknown_key_in_a_yaml_is_refused(launch):
    experiment = CHECKOUT / "experiments" / "only_for_a_test.yaml"
    experiment.write_text("# @package _global_\noptimizer:\n  lrr: 1\n")
    try:
        done = launch("experiment=only_for_a_test")
    finally:
        experiment.unlink()
    refused(done, "optimizer.lrr: is no key of the configuration; did you mean optimizer.lr?")


def test_a_run_folder_that_cannot_be_made_is_one_line(launch, tmp_path):
    (tmp_path / "file").write_text("")
    done = launch(f"runs_dir={tmp_path}/file/runs", "tracking=none")
    assert done.code == 2
    assert done.err.startswith("mvit: cannot create the run folder")
    assert len(done.err.splitlines()) == 1
    assert os.listdir(tmp_path) == ["file"]


def test_an_unreadable_image_is_named_before_training_starts(launch, tmp_path):
    root = make_folder(tmp_path)
    (root / "val/dog/1.jpg").write_bytes(b"no image")
    done = launch("data=imagefolder", f"data.root={root}", "train.global_batch_size=2", "tracking=none")
    assert done.code == 2
    assert done.err.splitlines() == [
        f"mvit: data.root: '{root}/val/dog/1.jpg' cannot be decoded;"
        " remove or repair it, or set data.on_unreadable=skip"
    ]
    assert [path.name for path in done.runs.iterdir()] == [".readable"]  # the finding, for the next launch


def test_a_wrong_request_exits_with_2_in_a_process_of_its_own(tmp_path_factory):
    done = launcher(tmp_path_factory)("optimizer.lrr=1")
    refused(done, "optimizer.lrr: is no key of the configuration; did you mean optimizer.lr?")


def test_a_missing_value_does_not_hide_what_else_is_wrong(launch):
    done = launch("data=imagefolder", "optimizer.lrr=1", "train.epochs=x")
    assert [line.split(":")[1].strip() for line in done.err.splitlines()] == [
        "data.root",
        "optimizer.lrr",
        "train.epochs",
    ]


@pytest.mark.parametrize("arguments", [["model=null"], ["-m", "model=null,small"]])
def test_no_group_can_be_null(launch, arguments):
    refused(launch(*arguments), "model: 'null' is no option of the group; use one of: small, x_small, xx_small")


def test_a_number_in_the_environment_that_is_none_is_one_line(launch, monkeypatch):
    monkeypatch.setenv("MVIT_NODE_RANK", "first")
    refused(launch(), "MVIT_NODE_RANK: 'first' is not a number; set MVIT_NODE_RANK to a non-negative integer")


def test_a_skipped_image_too_many_is_refused(launch, tmp_path):
    root = make_folder(tmp_path, per_class=2)
    (root / "train/dog/1.jpg").write_bytes(b"no image")
    folder = ("data=imagefolder", f"data.root={root}", "data.on_unreadable=skip", "tracking=none")
    done = launch(*folder, "train.global_batch_size=4")
    assert done.code == 2
    assert done.err == "mvit: train.global_batch_size: 4 is more than the 3 training images; use 3 or less\n"


BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n"
for before, name in ("ab", "bc", "cd", "de", "ef", "fg"):
    BOMB += f"{name}: &{name} [{','.join([f'*{before}'] * 9)}]\n"


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        (BOMB, "holds more than 100000 values, aliases included"),
        ("a: " + "[" * 3000 + "]" * 3000, "is nested more than 100 deep"),
        ("a: " + "x" * (2 << 20), "has more than 1 MiB"),
        ("a: &a {b: *a}", "holds an alias of what it is part of"),
        (
            "hydra: {callbacks: {x: {_target_: numpy.load, file: x.pkl, allow_pickle: true}}}",
            "holds _target_: a configuration is data and executes nothing",
        ),
        (
            "hydra: {job: {env_set: {PYTHONPATH: elsewhere}}}",
            "holds env_set: a configuration is data and executes nothing",
        ),
    ],
)
def test_a_file_that_would_blow_up_is_refused_before_it_is_composed(launch, tmp_path_factory, text, rule):
    folder = tmp_path_factory.mktemp("conf")
    (folder / "experiment").mkdir()
    (folder / "experiment" / "bomb.yaml").write_text(f"# @package _global_\n{text}\n")
    done = launch("experiment=bomb", "dry_run=true", f"--config-dir={folder}")
    assert done.code == 2
    assert done.err.count("\n") == 1
    assert f"experiment/bomb.yaml: {rule}; mend it, or move it away" in done.err


@pytest.mark.parametrize(
    "argument",
    [
        "++hydra.callbacks.x._target_=numpy.load",
        "+model._target_=os.system",
        "hydra.searchpath=[/tmp]",
        "+hydra.job.env_set.LD_PRELOAD=/tmp/x.so",
        "--experimental-rerun=config.pickle",
        "--e=config.pickle",
        "=3",
        "--config-path=/tmp",
        "-cp=/tmp",
    ],
)
def test_arguments_that_would_execute_or_look_elsewhere_are_refused(launch, argument):
    done = launch(argument)
    assert done.code == 2
    assert done.err.count("\n") == 1
    assert done.err.startswith(f"mvit: {argument.partition('=')[0].lstrip('+')}")


@pytest.mark.parametrize("flags", [["--resolve"], ["-m", "--cfg", "job"]])
def test_flags_that_do_not_go_together_are_one_line(launch, flags):
    done = launch(*flags)
    assert done.code == 2
    assert done.err.count("\n") == 1


def test_what_an_experiment_tries_is_replaced_on_the_command_line(launch):
    done = launch("experiment=digits_seeds", "seed=5", "dry_run=true")
    assert (done.code, done.out.count("  devices")) == (0, 1)
    done = launch("-m", "experiment=digits_seeds", "seed=5,6", "dry_run=true")
    assert (done.code, done.out.count("  devices")) == (0, 2)


def test_a_folder_of_configuration_may_stand_anywhere(launch, tmp_path_factory):
    folder = tmp_path_factory.mktemp("conf")
    (folder / "experiment").mkdir()
    (folder / "experiment" / "mine.yaml").write_text("# @package _global_\nseed: 7\n")
    for place in ([f"--config-dir={folder}"], ["--config-dir", str(folder)]):
        done = launch("experiment=mine", *place, "dry_run=true")
        assert done.code == 0, done.err


def test_aliases_are_welcome(launch, tmp_path_factory):
    folder = tmp_path_factory.mktemp("conf")
    (folder / "experiment").mkdir()
    text = "# @package _global_\noptimizer: {lr: &rate 0.001}\nschedule: {final_lr: *rate}\nseed: 1\n"
    (folder / "experiment" / "shared.yaml").write_text(text)
    done = launch("experiment=shared", "dry_run=true", f"--config-dir={folder}")
    assert done.code == 0, done.err


@pytest.mark.parametrize("port", ["0", "65536", "-1", "http"])
def test_a_port_that_is_none_is_refused(port, capsys):
    with pytest.raises(SystemExit) as ended:
        main.main(["ui", f"--port={port}"])
    assert ended.value.code == 2
    assert f"argument --port: {port!r} is no" in capsys.readouterr().err
