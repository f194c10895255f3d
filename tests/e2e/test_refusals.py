"""Wrong requests: one clear line for each problem, exit code 2, nothing left behind."""

import ast
import os
import subprocess
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
        (["optimizer.lrr=1"], ["optimizer.lrr: unknown key; did you mean optimizer.lr?"]),
        (
            ["train.epochs=three", "seed=x"],
            [
                "seed: 'x' must be a valid integer; seed for initial weights, image order, augmentation and dropout",
                "train.epochs: 'three' must be a valid integer; passes over the training images",
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
            ["data.root: '/nowhere' does not exist; set it to the directory that contains train and val"],
        ),
        (
            ["precision=bf16"],
            ["precision: 'bf16' does not run on a CPU; use precision=fp32 or an Ascend topology"],
        ),
        (
            ["train.activations=bf16", "model.kernels=plain"],
            [
                "train.activations: 'bf16' is for the fused kernels, and model.kernels is plain;"
                " use train.activations=fp32"
            ],
        ),
        (
            ["train.activations=bf16", "precision=fp16"],
            ["train.activations: 'bf16' is for the fused kernels, and precision is fp16; use train.activations=fp32"],
        ),
        (
            ["topology=ascend_8"],
            [
                "topology: needs 8 Ascend cards per node, this host has 0;"
                " use topology=cpu, or dry_run=true to see the plan"
            ],
        ),
        (["model=huge"], ["model: 'huge' is not an option; use one of: small, x_small, xx_small"]),
        (["model=xx_smal"], ["model: 'xx_smal' is not an option; did you mean xx_small?"]),
        (["data=imagefolder"], ["data.root: has no value; set data.root=..."]),
        (["experiment=nothing"], [f"experiment: 'nothing' is not an option; use one of: {EXPERIMENTS}"]),
        (
            ["optimzer.lr=1", "trian.epochs=2", "model=x_smal", "--epochs", "3"],
            [
                "--epochs: unknown flag; did you mean train.epochs=3?",
                "model: 'x_smal' is not an option; did you mean x_small?",
                "optimzer.lr: unknown key; did you mean optimizer.lr?",
                "trian.epochs: unknown key; did you mean train.epochs?",
            ],
        ),
        (
            ["task=evaluate", "task.checkpoint=/x", "optimizer.lr=9", "train.epochs=3", "optimizer=sgd"],
            [
                "optimizer: not used by task=evaluate; remove it, or use task=train, task=benchmark or task=profile",
                "optimizer.lr: not used by task=evaluate; remove it, or use task=train, task=benchmark or task=profile",
                "train.epochs: not used by task=evaluate; remove it, or use task=train",
            ],
        ),
        (
            [
                *("task=evaluate", "task.checkpoint=/x", "optimizer.lr=9", "train.epochs=3", "limits.step_s=9"),
                *("topology=cpu", "topology.jit_level=O2"),
            ],
            [
                "optimizer.lr: not used by task=evaluate; remove it, or use task=train, task=benchmark or task=profile",
                "train.epochs: not used by task=evaluate; remove it, or use task=train",
                "topology.jit_level: not used by topology=cpu; remove it, or use topology=ascend_1, ascend_2x8,"
                " ascend_8 or ascend_8_O2",
                "limits.step_s: not used by task=evaluate; remove it, or use task=train, task=benchmark or"
                " task=profile",
                "task.checkpoint: '/x' does not exist; name a .safetensors file, or a finished run by its folder or id",
            ],
        ),
        (
            ["-m", "task=evaluate", "task.checkpoint=x.safetensors", "optimizer=sgd,lion"],
            [
                "optimizer: not used by task=evaluate; remove it, or use task=train, task=benchmark or task=profile",
            ],
        ),
        (["optimizer.lr"], None),
        (["optimizer.lr=[1,"], None),
        (["name=${nothing}"], None),
        (
            ["task=evaluate", "task.checkpoint=/nowhere.safetensors"],
            [
                "task.checkpoint: '/nowhere.safetensors' does not exist;"
                " name a .safetensors file, or a finished run by its folder or id"
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


def test_a_dry_run_refuses_weights_that_the_launch_would_refuse(launch, tmp_path):
    (tmp_path / "torn.safetensors").write_bytes(b"no weights")
    for words in (
        ["task=evaluate", f"task.checkpoint={tmp_path}"],
        ["init=weights", f"init.checkpoint={tmp_path}/torn.safetensors"],
        ["init=weights", "init.checkpoint=/nowhere"],
    ):
        done, dry = launch(*words), launch(*words, "dry_run=true")
        assert (done.code, dry.code) == (2, 2)
        assert dry.err == done.err
        assert dry.err.count("\n") == 1
    assert launch("topology=ascend_8", "dry_run=true").code == 0, "cards may be elsewhere"


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("optimizer=", "optimizer=sgd"),
        ("mod", "model="),
        ("train.ep", "train.epochs="),
        ("precision=O", "precision=O1"),
    ],
)
def test_the_shell_completes_options_and_keys(typed, offered, tmp_path):
    line = f"python launch.py {typed}"
    environment = {**os.environ, "COMP_LINE": line, "COMP_POINT": str(len(line))}
    command = [sys.executable, str(CHECKOUT / "launch.py"), "-sc", "query=bash"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path, check=True)
    assert offered in done.stdout.split()
    install = subprocess.run([*command[:-1], "install=bash"], capture_output=True, text=True, cwd=tmp_path, check=True)
    assert "complete -o nospace" in install.stdout


def test_an_interpreter_without_the_packages_is_named_in_one_line(tmp_path):
    command = [sys.executable, "-I", "-S", str(CHECKOUT / "launch.py"), "--help"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        f"mvit: hydra-core is not installed in {sys.executable}; run: make env, then .venv/bin/python launch.py ...\n"
    )


def test_another_python_could_say_which_it_should_be():
    text = (CHECKOUT / "launch.py").read_text()
    ast.parse(text, feature_version=(3, 6))


def test_a_value_that_must_be_quoted_is_told_how(launch):
    refused(
        launch("data=imagefolder", "data.root=~/images"),
        "data.root=~/images: has a character that must be quoted twice; write \"data.root='value'\"",
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
    refused(done, "optimizer.lrr: unknown key; did you mean optimizer.lr?")


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
    refused(done, "optimizer.lrr: unknown key; did you mean optimizer.lr?")


def test_a_missing_value_does_not_hide_what_else_is_wrong(launch):
    done = launch("data=imagefolder", "optimizer.lrr=1", "train.epochs=x")
    assert [line.split(":")[1].strip() for line in done.err.splitlines()] == [
        "data.root",
        "optimizer.lrr",
        "train.epochs",
    ]


@pytest.mark.parametrize("arguments", [["model=null"], ["-m", "model=null,small"]])
def test_no_group_can_be_null(launch, arguments):
    refused(launch(*arguments), "model: 'null' is not an option; use one of: small, x_small, xx_small")


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (
            ["launch=slurm", "sweep.slots=[[0],[1]]"],
            "sweep.slots: [[0], [1]] names cores or cards of this machine, and the trials are jobs of Slurm; "
            "say how many of them may run at once",
        ),
        (
            ["launch=slurm", "topology.threads=1,2"],
            "topology: differs between the trials, and the jobs of an array are of one size; "
            "sweep each topology by itself",
        ),
        (
            ["launch=slurm", "launch.partition=a,b"],
            "launch: differs between the trials; give each of its keys one value",
        ),
        (
            ["topology=cpu_2", "topology.nodes=2"],
            "topology.nodes: is for machines that a person starts by hand, for each trial anew; "
            "name them in topology.hosts, or sweep on one machine",
        ),
    ],
)
def test_trials_that_cannot_be_executed_here_are_refused(launch, overrides, line):
    refused(launch("-m", "seed=1,2", *overrides), line)


def test_a_number_in_the_environment_that_is_none_is_one_line(launch, monkeypatch):
    monkeypatch.setenv("MVIT_MASTER_PORT", "first")
    refused(launch(), "MVIT_MASTER_PORT: 'first' is not a number; set MVIT_MASTER_PORT to a non-negative integer")


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
        ("a: &a {b: *a}", "has an alias of what it is part of"),
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
    assert f"experiment/bomb.yaml: {rule}; fix or remove it" in done.err


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
    done = launch("experiment=seeds", "seed=5", "dry_run=true")
    assert (done.code, done.out.count("  devices")) == (0, 1)
    done = launch("-m", "experiment=seeds", "seed=5,6", "dry_run=true")
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
    assert f"argument --port: {port!r} must be a port" in capsys.readouterr().err
