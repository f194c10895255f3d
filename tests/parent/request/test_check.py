from pathlib import Path

import pytest

from mvit.config import TASKS
from mvit.errors import ConfigError
from mvit.parent.request import rules
from mvit.parent.request.check import check, parse
from tests.conftest import CHECKOUT, raw_config

OPTIONS = [
    (group.name, option.stem)
    for group in sorted((CHECKOUT / "conf").iterdir())
    if group.is_dir() and not group.is_symlink() and group.name != "dashboard"  # views of MLflow, not of a run
    for option in sorted(group.glob("*.yaml"))
]
NEEDED = {
    "imagefolder": ["data.root=/images"],
    "mindrecord": ["data.root=/shards"],
    "cifar10": ["data.root=/cifar"],
    "cifar100": ["data.root=/cifar"],
    "files": ["task=predict", "task.checkpoint=x.safetensors", "data.images=photos"],
    "evaluate": ["task.checkpoint=x.safetensors"],
    "export": ["task.checkpoint=x.safetensors"],
    "predict": ["task.checkpoint=x.safetensors", "data.images=photos"],
    "step": ["schedule.milestones=[3.0,4.0]"],
    "weights": ["init.checkpoint=x.safetensors"],
}


def problems(*overrides: str) -> list[str]:
    return [str(problem) for problem in check(raw_config(*overrides))[1]]


@pytest.mark.parametrize(("group", "option"), OPTIONS)
def test_every_option_composes_and_validates(group, option):
    device = {"bf16": ["topology=ascend_1"], "fixed": ["precision=fp16"], "dynamic": ["precision=fp16"]}.get(option, [])
    config = parse(raw_config(f"{group}={option}", *NEEDED.get(option, []), *device))
    assert type(config) is TASKS[option if group == "task" else "predict" if option == "files" else "train"]


def test_the_configuration_is_frozen(configured):
    config = configured()
    with pytest.raises(ValueError, match="frozen"):
        config.seed = 2


def test_all_problems_are_listed_at_once():
    found = problems(
        "++optimizer.lrr=1", "++train.epochs=abc", "++modell=1", "++model.heads=3", "topology=cpu_2", "precision=bf16"
    )
    assert found == [
        "modell: unknown key; did you mean model?",
        "optimizer.lrr: unknown key; did you mean optimizer.lr?",
        "train.epochs: 'abc' must be a valid integer; passes over the training images",
        "model.features.0: 64 does not divide into 3 heads; use 63 or 66",
        "model.features.1: 80 does not divide into 3 heads; use 78 or 81",
        "precision: 'bf16' does not run on a CPU; use precision=fp32 or an Ascend topology",
    ]


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("++train.epochs=true", "train.epochs: True must be a valid integer"),
        ("++optimizer.lr=-1", "optimizer.lr: -1 must be greater than 0; peak learning rate"),
        ("++optimizer.lr=nan", "optimizer.lr: nan must be a finite number"),
        ("++data.kind=imagefoldr", "data.kind: 'imagefoldr' is not a kind of data; did you mean imagefolder?"),
        ("++optimizer.kind=sdg", "optimizer.kind: 'sdg' is not a kind of optimizer; did you mean sgd?"),
        (
            "++augment.policy.kind=randagment",
            "augment.policy.kind: 'randagment' is not a kind of policy; did you mean randaugment?",
        ),
        ("++train.freeze=[stm.*]", "train.freeze: 'stm.*' matches no parameter; use the pattern of a parameter"),
        ("++train.freeze=['*']", "train.freeze: ['*'] leaves nothing to train; remove head.*"),
        ("++augment.crop=3", "augment.crop: 3 must be a group of keys"),
        (
            "++data.train_folder=x",
            "data.train_folder: not used by data=digits; remove it, or use data=imagefolder",
        ),
        ("++augment.crop.scal=3", "augment.crop.scal: unknown key; did you mean augment.crop.scale"),
        ("++augment.crop.scale=[0.9,0.1]", "augment.crop.scale: [0.9, 0.1] must be a range"),
        ("++model.channels=[1,2]", "model.channels: [1, 2] has too few values; channels of stages 1 to 5"),
        ("++seed=-1", "seed: -1 must be greater than or equal to 0"),
        ("++name=a/b", "name: 'a/b' must match pattern"),
        ("++schedule.warmup=99", "schedule.warmup: 99.0 is longer than the 5 epochs of training; use 5"),
        ("++schedule.final_lr=1.0", "schedule.final_lr: 1.0 is above the peak, optimizer.lr=0.002; use 0.002"),
        ("++data.std=[1.0,0.0,1.0]", "data.std.1: 0.0 must be greater than 0"),
        ("++train.label_smoothing=1.0", "train.label_smoothing: 1.0 must be less than 1"),
    ],
)
def test_each_problem_names_path_value_rule_and_remedy(override, line):
    (found,) = problems(override) or [""]
    assert found.startswith(line)
    assert "; " in found


def test_processors_are_bound_only_where_there_are_several_cards():
    for overrides in (["topology=ascend_1"], ["topology=ascend_8", "topology.cards_per_node=1"]):
        assert problems(*overrides, "topology.bind_core=true") == [
            "topology.bind_core: has no effect with one card, which runs without msrun; use topology.bind_core=false"
        ]
    assert problems("topology=ascend_8", "topology.cards_per_node=2") == []


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (["topology.cores=[0-3]"], "topology.cores: ['0-3'] has processors for 1 of 2 cards; list those of each card"),
        (["topology.cores=[0-3,4-]"], "topology.cores.1: '4-' must match pattern"),
        (["topology.bind_core=false", "topology.cores=[0-1,2-3]"], "topology.cores: ['0-1', '2-3'] has no effect"),
        (
            ["topology.cards_per_node=1", "topology.bind_core=false", "topology.hccl_exec_s=600"],
            "topology.hccl_exec_s: has",
        ),
        (["topology.hccl_connect_s=5"], "topology.hccl_connect_s: 5 must be greater than or equal to 120"),
        (
            ["topology.fault_tolerance=[UCE]", "topology.jit_level=O2"],
            "topology.fault_tolerance: ['UCE'] does not work",
        ),
        (["topology.fault_tolerance=[XYZ]"], "topology.fault_tolerance.0: 'XYZ' must be 'TTP', 'UCE', 'HCCE', 'ARF'"),
    ],
)
def test_what_cards_cannot_have_is_refused(overrides, line):
    found = problems("topology=ascend_8", "topology.cards_per_node=2", *overrides)
    assert found
    assert found[0].startswith(line), found


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (["topology.nodes=2"], "topology.workers: 1 do not divide among 2 machines; use 2"),
        (
            ["topology.hosts=[a]"],
            "topology.hosts: ['a'] is for several machines, and topology.nodes is 1; leave it out",
        ),
        (
            ["topology=cpu_2", "topology.nodes=2", "topology.hosts=[a,a]"],
            "topology.hosts: ['a', 'a'] must name 2 different machines, this one first; change it, or topology.nodes",
        ),
        (
            ["launch=slurm", "launch.options=[gres]"],
            "launch.options: 'gres' is not a long option of sbatch on one line",
        ),
        (
            ["launch=slurm", "launch.options=['--array=0-3']"],
            "launch.options: '--array=0-3' is what mvit itself decides",
        ),
        (
            ["launch=slurm", "launch.time_limit=2"],
            "launch.stop_before_s: 120 is not less than the 120 seconds of launch.time_limit=2; lower it, or raise",
        ),
        (["launch=slurm", "launch.partition='a b'"], "launch.partition: 'a b' "),
    ],
)
def test_machines_and_jobs_that_cannot_be_are_refused(overrides, line):
    (found,) = problems(*overrides)
    assert found.startswith(line)


@pytest.mark.parametrize(
    ("overrides", "remedy"),
    [
        (["topology=cpu_2", "++train.global_batch_size=33"], "33 does not split over 2 devices; use 32 or 34"),
        (["topology=ascend_8", "++train.global_batch_size=3"], "3 does not split over 8 devices; use 8"),
        (
            ["topology=cpu_2", "++train.accumulation=3", "++train.global_batch_size=100"],
            "100 does not split over 2 devices x 3 micro-batches; use 96 or 102",
        ),
    ],
)
def test_a_global_batch_that_does_not_split_names_the_nearest_ones(overrides, remedy):
    assert problems(*overrides) == [f"train.global_batch_size: {remedy}"]


def test_ends_of_a_schedule_are_held_against_the_scaled_rate():
    scaled = ("++optimizer.lr_batch_size=1024", "++schedule.final_lr=2e-4")
    assert problems(*scaled) == [
        "schedule.final_lr: 0.0002 is above the peak, optimizer.lr scaled to the global batch, 6.25e-05;"
        " use 6.25e-05 or less"
    ]
    assert problems("++optimizer.lr_batch_size=8", "++schedule.final_lr=4e-3") == []


def test_freezing_all_that_is_trained_is_refused():
    patterns = "['*.weight','*.bias','*.gamma','*.beta']"
    assert problems(f"++train.freeze={patterns}")[0].endswith("leaves nothing to train; remove head.*")
    assert "matches no parameter" in problems("++train.freeze=['*.moving_mean']")[0]


def test_a_part_of_one_image_cannot_be_mixed():
    (line,) = problems("augment=mixup_cutmix", "topology=cpu_2", "++train.global_batch_size=2")
    assert line.startswith("train.global_batch_size: 2 leaves one image for each of 2 parts, with nothing to mix")


def test_an_unknown_key_does_not_hide_what_else_is_wrong_in_its_section():
    found = problems("++train.epchs=1", "topology=cpu_2", "++train.global_batch_size=33")
    assert [line.split(":")[0] for line in found] == ["train.epchs", "train.global_batch_size"]


@pytest.mark.parametrize(
    "uri",
    [
        "http://user:secret@host/x",
        "postgresql://u:p@h/db",
        "https://token@host",
        "postgresql://h/db?password=x",
        "postgresql://u:p/w@h/db",
    ],
)
def test_a_tracking_uri_with_credentials_is_refused_without_repeating_them(uri):
    (line,) = problems(f"++tracking.uri='{uri}'")
    assert line.startswith("tracking.uri: '(hidden)' contains credentials")
    assert "secret" not in line


def test_a_missing_section_is_one_line():
    raw = raw_config()
    del raw["optimizer"]
    with pytest.raises(ConfigError, match=r"^optimizer: is missing; take it from conf/config.yaml$"):
        parse(raw)


def test_the_reference_page_is_current():
    from mvit.reference import configuration

    page = CHECKOUT / "docs" / "configuration.md"
    assert page.read_text() == configuration(), "run make docs"


def test_every_field_has_a_description():
    from mvit.reference import configuration

    assert "None |" not in configuration()


@pytest.mark.parametrize("limits", [["launch.time_limit=3"], ["launch.time_limit=1", "launch.stop_before_s=59"], []])
def test_a_job_that_has_time_before_it_is_to_stop_is_accepted(limits):
    assert check(raw_config("launch=slurm", *limits))[1] == []


PREDICT = ("task=predict", "task.checkpoint=x.safetensors", "data.images=photos")
EXPORT = ("task=export", "task.checkpoint=x.safetensors")


def test_an_export_to_onnx_needs_onnxruntime(monkeypatch):
    monkeypatch.setattr(rules, "find_spec", lambda _: None)
    (problem,) = problems(*EXPORT)
    assert problem.startswith("task.formats: 'onnx' is checked with onnxruntime, which is not installed; pip install")
    assert problems(*EXPORT, "task.formats=[mindir]") == []


def test_one_image_needs_no_brackets():
    assert parse(raw_config(*PREDICT)).model_dump()["data"]["images"] == (str(Path("photos").absolute()),)
    (problem,) = problems(*PREDICT, "task.output=answers.txt")
    assert problem.startswith("task.output: ")


@pytest.mark.parametrize("task", ["benchmark", "profile"])
def test_steps_are_measured_on_images_of_their_own(task):
    with pytest.raises(ConfigError) as error:
        raw_config(f"task={task}", "data=synthetic")
    owners = "task=train, task=evaluate, task=predict or task=export"
    assert str(error.value) == f"data: not used by task={task}; remove it, or use {owners}"


def test_a_shape_is_measured_once():
    assert problems("task=benchmark", "task.batch_sizes=[8,8]") == [
        "task.batch_sizes: [8, 8] names a value twice; name each of them once"
    ]
    assert problems("task=profile", "task.modes=[]") == ["task.modes: [] leaves nothing to measure; name one or more"]
    (problem,) = problems("task=benchmark", "task.image_sizes=[16]")
    assert problem.startswith("task.image_sizes.0: 16 must be greater than or equal to 32")


def test_a_profile_is_of_one_process_on_a_cpu():
    assert problems("task=profile", "topology=cpu_2") == [
        "topology: has 2 processes, and task=profile runs in one; use topology=cpu"
    ]
    (problem,) = problems("task=profile", "topology=ascend_1")
    assert problem.startswith(
        "topology: is ascend, and task=profile reads what MindSpore's profiler records on a CPU; "
    )
