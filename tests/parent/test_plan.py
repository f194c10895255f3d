import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from mvit.config import SlurmLaunch
from mvit.data import dataset
from mvit.errors import ConfigError
from mvit.models.kernels.build import Support
from mvit.parent.command import make_command
from mvit.parent.host import Host
from mvit.parent.plan import make_plan
from mvit.parent.request.launch_rules import data_rules, host_rules
from mvit.parent.request.rules import judge
from mvit.parent.slot import Slot, must_fit, parse_slot
from mvit.parent.slurm.script import job_script
from mvit.places import PROJECT
from mvit.rundir.frozen import Run
from mvit.rundir.paths import RunDir

FOLDER = Path("/runs/x")
PLANS = Path(__file__).with_name("plans")
SLOT = Slot()
HOST = Host(
    python="/env/bin/python",
    path="/usr/bin",
    pythonpath="/cann/python",
    glibc_tunables="glibc.malloc.arena_max=2",
    cpu_count=2,
    ascend_cards=0,
    kernels=Support("avx2"),
)
IMAGENET = ("train=imagenet", "data=synthetic", "data.num_train=1281167", "data.num_val=50000", "data.classes=1000")


@pytest.fixture
def planned(configured):
    def make(*overrides, host=HOST):
        config = configured(*overrides)
        return make_plan(config, host=host, facts=dataset.survey(config.data).facts)

    return make


@pytest.fixture
def commanded(configured):
    def make(*overrides, host=HOST, slot=SLOT, graphs=None):
        config = configured(*overrides)
        run = Run(RunDir(FOLDER), config, make_plan(config, host=host, facts=dataset.survey(config.data).facts))
        return make_command(run, host=host, slot=slot, port=23456, attempt=1, graphs=graphs)

    return make


def test_one_worker_needs_no_msrun(commanded):
    assert commanded().argv == ("/env/bin/python", "-m", "mvit.worker.main", "/runs/x")


def test_two_workers_run_under_msrun(planned, commanded):
    plan = planned("topology=cpu_2")
    assert " ".join(commanded("topology=cpu_2").argv) == (
        "msrun --worker_num 2 --local_worker_num 2 --master_addr 127.0.0.1 --master_port 23456"
        " --log_dir /runs/x/logs/attempt-1 --join=True --cluster_time_out 360 --tail_worker_log 2"
        " python -m mvit.worker.main /runs/x"
    )
    assert plan.buckets[0].per_device_batch_size == 16
    assert plan.threads == 1


def test_eight_cards_are_planned_as_the_published_command_has_them(planned, commanded):
    plan = planned("topology=ascend_8_O2", *IMAGENET, "data.image_size=256")
    assert " ".join(commanded("topology=ascend_8_O2").argv) == (
        "msrun --bind_core=True --worker_num 8 --local_worker_num 8 --master_addr 127.0.0.1 --master_port 23456"
        " --log_dir /runs/x/logs/attempt-1 --join=True --cluster_time_out 360 --tail_worker_log 8"
        " python -m mvit.worker.main /runs/x"
    )
    assert (plan.device, plan.jit_level, plan.world_size) == ("Ascend", "O2", 8)
    assert (plan.buckets[0].global_batch_size, plan.buckets[0].per_device_batch_size) == (512, 64)
    assert plan.steps_per_epoch == 1281167 // 512
    assert plan.eval_steps == -(-6250 // 64)
    assert plan.parameters == 1_272_024


def test_what_ascend_is_told_ends_in_the_exact_command_and_environment(commanded):
    plain = commanded("topology=ascend_8")
    cores = [f"{24 * card}-{24 * card + 23}" for card in range(8)]
    chosen = commanded(
        "topology=ascend_8",
        f"topology.cores=[{','.join(cores)}]",
        "topology.rank_table=/etc/ranks.json",
        "topology.hccl_connect_s=600",
        "topology.hccl_exec_s=1800",
        "topology.fault_tolerance=[UCE,ARF]",
    )
    bound = f"--bind_core={json.dumps({f'device{card}': [one] for card, one in enumerate(cores)})}"
    assert chosen.argv == ("msrun", bound, "--rank_table_file=/etc/ranks.json", *plain.argv[2:])
    assert plain.argv[1] == "--bind_core=True"
    added = {"HCCL_CONNECT_TIMEOUT": "600", "HCCL_EXEC_TIMEOUT": "1800", "MS_ENABLE_TFT": "{UCE:1,ARF:1}"}
    assert chosen.env == {**plain.env, **added}


def test_msrun_reads_the_processors_as_they_are_given(commanded):
    """MindSpore's own parser of the option."""
    from mindspore.parallel.cluster.run import _parse_and_validate_bind_core

    cores = "topology.cores=[0-3,'4,6']"
    chosen = commanded("topology=ascend_8", "topology.cards_per_node=2", cores)
    (option,) = (word for word in chosen.argv if word.startswith("--bind_core="))
    read = _parse_and_validate_bind_core(option.partition("=")[2])
    assert read == {"device0": ["0-3"], "device1": ["4,6"]}


def test_one_card_needs_no_msrun(planned, commanded):
    plan = planned("topology=ascend_1")
    assert commanded("topology=ascend_1").argv == ("/env/bin/python", "-m", "mvit.worker.main", "/runs/x")
    assert (plan.device, plan.jit_level) == ("Ascend", "O1")


@pytest.mark.parametrize("rank", [0, 1])
def test_two_machines_differ_in_their_rank_alone(planned, commanded, rank):
    slot = Slot(node_rank=rank, master_addr="10.0.0.1")
    plan = planned("topology=ascend_2x8", *IMAGENET)
    assert " ".join(commanded("topology=ascend_2x8", slot=slot).argv) == (
        f"msrun --bind_core=True --worker_num 16 --local_worker_num 8 --node_rank {rank} --master_addr 10.0.0.1"
        " --master_port 23456 --log_dir /runs/x/logs/attempt-1 --join=True --cluster_time_out 360 --tail_worker_log 16"
        " python -m mvit.worker.main /runs/x"
    )
    assert (plan.world_size, plan.nodes, plan.buckets[0].per_device_batch_size) == (16, 2, 32)


@pytest.mark.parametrize(
    ("name", "overrides"),
    [
        ("ascend_1", ["topology=ascend_1", "train.accumulation=8"]),
        ("ascend_8", []),
        ("ascend_2x8", ["topology=ascend_2x8"]),
    ],
)
def test_the_published_recipe_starts_what_was_reviewed(configured, name, overrides):
    """Commands, environment and job script, against a file of tests/parent/plans that a person has read."""
    data = [override for override in IMAGENET if override.startswith("data")]
    config = configured("experiment=reproduce_xx_small", *data, "launch=slurm", "launch.time_limit=1440", *overrides)
    host = replace(HOST, ascend_cards=8)
    run = Run(RunDir(FOLDER), config, make_plan(config, host=host, facts=dataset.survey(config.data).facts))
    shown = []
    for rank in range(run.plan.nodes):
        slot = Slot(node_rank=rank, master_addr="10.0.0.1" if run.plan.nodes > 1 else "127.0.0.1")
        command = make_command(run, host=host, slot=slot, port=23456, attempt=1)
        shown += [f"# node {rank}", *(f"{key}={value}" for key, value in command.env.items()), " ".join(command.argv)]
    (bucket,) = run.plan.buckets
    per_device = f"{run.plan.world_size} x {bucket.per_device_batch_size} x {run.plan.accumulation}"
    shown += [f"# global batch {bucket.global_batch_size} = {per_device}", "# job.sh"]
    assert isinstance(config.launch, SlurmLaunch)
    shown += [job_script(run, config.launch, host=host)]
    assert "\n".join(shown).replace(str(PROJECT), "CHECKOUT") == (PLANS / f"{name}.txt").read_text()


def test_the_environment_of_a_worker_is_exact(commanded):
    common = {
        "PATH": "/env/bin:/usr/bin",
        "PYTHONPATH": f"{PROJECT}:/cann/python",
        "PYTHONUNBUFFERED": "1",
        "GLOG_v": "3",
        "GLIBC_TUNABLES": "glibc.malloc.tcache_count=60000:glibc.malloc.arena_max=2",
        "MS_EXCEPTION_DISPLAY_LEVEL": "1",
        "MS_OM_PATH": "/runs/x/logs/attempt-1",
    }
    assert commanded("topology=cpu_2", graphs=Path("/cache/graphs")).env["MVIT_GRAPHS"] == "/cache/graphs"
    assert commanded("topology=cpu_2").env == {**common, "OMP_WAIT_POLICY": "passive", "ONEDNN_MAX_CPU_ISA": "AVX2"}
    assert commanded("topology=ascend_8").env == common


def test_micro_batches_and_workers_cut_a_global_batch_alike(planned):
    both = planned("topology=cpu_2"), planned("train.accumulation=2")
    assert [plan.buckets[0].per_device_batch_size for plan in both] == [16, 16]
    assert [graph.name for graph in both[1].graphs] == ["accumulate", "update", "evaluate"]


SCALES = "train.buckets=[{image_size: 64, global_batch_size: 300}, {image_size: 96, global_batch_size: 100}]"


def test_an_epoch_has_as_many_steps_of_each_bucket_as_fit(planned):
    plan = planned(SCALES, "topology=cpu_2")
    # 1437 digits are three rounds of 400 and 237 more, in which the first bucket has no room and the second has.
    assert [bucket.steps_per_epoch for bucket in plan.buckets] == [3, 4]
    assert plan.steps_per_epoch == 7
    assert [(graph.name, graph.images) for graph in plan.graphs] == [
        ("train-64", (150, 64, 64, 3)),
        ("train-96", (50, 96, 96, 3)),
        ("evaluate", (60, 64, 64, 3)),
    ]


def test_the_rate_is_scaled_with_the_global_batch_when_asked(planned):
    assert planned("optimizer.lr_batch_size=512").peak_lr == pytest.approx(2e-3 * 32 / 512)
    assert planned().peak_lr == 2e-3


def test_a_run_can_stop_before_its_schedule_ends(planned):
    plan = planned("train.max_steps=7")
    assert (plan.total_steps, plan.last_step) == (5 * 44, 7)
    assert planned("train.max_steps=7000").last_step == 5 * 44


def test_frozen_parameters_are_not_counted_as_trained(planned):
    plan = planned("train.freeze=['stem.*', 'stages.*', 'transformers.*', 'final.*']")
    assert plan.trained_parameters == 320 * 10 + 10


def found(rules, raw, *overrides):
    from mvit.parent.request.check import check

    return [str(problem) for problem in judge(rules, check(raw(*overrides))[0])]


def test_ascend_cards_that_are_not_there_are_refused(raw):
    (line,) = found(host_rules(HOST), raw, "topology=ascend_8")
    assert line == (
        "topology: needs 8 Ascend cards per node, this host has 0; use topology=cpu, or dry_run=true to see the plan"
    )
    assert found(host_rules(replace(HOST, ascend_cards=8)), raw, "topology=ascend_8") == []
    assert found(host_rules(HOST), raw, "topology=ascend_8", "launch=slurm") == []  # the launch is elsewhere


def test_a_slot_that_does_not_fit_the_plan_is_refused(planned):
    plan = planned("topology=ascend_2x8", *IMAGENET)
    must_fit(Slot(node_rank=1, cards=tuple(range(8))), plan)
    with pytest.raises(ConfigError) as refused:
        must_fit(Slot(node_rank=2, cards=(0, 1)), plan)
    assert str(refused.value).splitlines() == [
        "--node-rank: 2 is not a node of 2; count from 0 to 1",
        "--slot: 'cards=0,1' does not fit the run, which needs 8 Ascend cards on each node; change the slot",
    ]
    with pytest.raises(ConfigError, match="--node-rank: -1 is not a node of 2"):
        must_fit(Slot(node_rank=-1), plan)
    with pytest.raises(ConfigError, match="--node-rank: 1 is for a run on several machines; leave it out"):
        must_fit(Slot(node_rank=1), planned())


def test_a_slot_of_other_cores_than_there_are_or_than_were_planned_is_refused(planned):
    plan = planned()
    with pytest.raises(ConfigError, match="has core 9999, which is not available to this process"):
        must_fit(Slot(cores=(0, 9999)), plan)
    with pytest.raises(ConfigError, match=f"does not fit the run, which was planned for {plan.cores} cores"):
        must_fit(Slot(cores=(min(os.sched_getaffinity(0)),)), plan)


def test_a_slot_is_parsed_and_binds_cores_and_cards(commanded):
    slot = parse_slot("cores=0:cards=2-4,7:port=21000", Slot())
    assert slot == Slot(cores=(0,), cards=(2, 3, 4, 7), port=21000)
    assert commanded("topology=ascend_1", slot=slot).env["ASCEND_RT_VISIBLE_DEVICES"] == "2,3,4,7"


@pytest.mark.parametrize("text", ["", "cores=", "cores=x", "cores=0,0", "port=80", "port=x", "core=1", "cores=3-1"])
def test_a_slot_that_makes_no_sense_is_one_line(text):
    with pytest.raises(ConfigError, match=r"^--slot: "):
        parse_slot(text, Slot())


def test_a_head_of_another_size_than_the_data_is_refused(raw, configured):
    facts = dataset.survey(configured().data).facts
    assert found(data_rules(facts), raw, "model.num_classes=11") == [
        "model.num_classes: 11 is not the number of classes of digits, 10; use 10, or null"
    ]
    assert found(data_rules(facts), raw, "model.num_classes=10") == []


def test_a_batch_larger_than_the_data_is_refused(raw, configured):
    facts = dataset.survey(configured().data).facts
    assert found(data_rules(facts), raw, "train.global_batch_size=2048") == [
        "train.global_batch_size: 2048 is more than the 1437 training images; use 1437 or less"
    ]


def test_a_warm_up_in_steps_that_is_longer_than_the_training_is_refused(raw, configured):
    facts = dataset.survey(configured().data).facts
    asked = ("schedule.warmup_unit=steps", "schedule.warmup=221")
    assert found(data_rules(facts), raw, *asked) == [
        "schedule.warmup: 221.0 is longer than the 220 steps of training; use 220 or less, or raise train.epochs"
    ]
    assert found(data_rules(facts), raw, "schedule.warmup_unit=steps", "schedule.warmup=220") == []


def test_buckets_that_never_all_fit_into_an_epoch_are_refused(raw, configured):
    facts = dataset.survey(configured().data).facts
    buckets = "++train.buckets=[{image_size: 64, global_batch_size: 800}, {image_size: 96, global_batch_size: 700}]"
    assert found(data_rules(facts), raw, buckets) == [
        "train.buckets: 1500 are more than the 1437 training images together: some sizes would get no steps;"
        " use smaller batches or fewer sizes"
    ]


def test_an_evaluation_is_not_judged_by_the_recipe_of_training(raw, configured):
    facts = dataset.survey(configured().data).facts
    asked = ("task=evaluate", "task.checkpoint=x", "train.global_batch_size=2048")
    assert found(data_rules(facts), raw, *asked, "schedule.warmup_unit=steps", "schedule.warmup=9999") == []
