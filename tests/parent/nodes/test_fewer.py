"""What is said to a person whose run has lost a machine."""

import pytest

from mvit.data import dataset
from mvit.parent.host import this_host
from mvit.parent.nodes.fewer import command_on_fewer
from mvit.parent.plan import make_plan
from mvit.parent.request.check import parse
from mvit.parent.request.compose import compose
from mvit.rundir.frozen import Run
from mvit.rundir.paths import RunDir


@pytest.fixture
def said(tmp_path):
    def of(*overrides):
        config = parse(compose(overrides))
        plan = make_plan(config, host=this_host(), facts=dataset.survey(config.data).facts)
        command = command_on_fewer(Run(RunDir(tmp_path), config, plan))
        return command and command.partition("--fork ")[2]

    return of


@pytest.mark.parametrize(
    ("overrides", "changes"),
    [
        (
            ["topology=cpu_2", "topology.nodes=2"],
            "topology.nodes=1 topology.workers=1 train.accumulation=2",
        ),
        (
            ["topology=cpu", "topology.workers=4", "topology.nodes=4", "train.accumulation=2"],
            "topology.nodes=2 topology.workers=2 train.accumulation=4",
        ),
        (
            [
                "topology=cpu",
                "topology.workers=4",
                "topology.nodes=4",
                "train.accumulation=3",
                "train.global_batch_size=24",
            ],
            "topology.nodes=3 topology.workers=3 train.accumulation=4",
        ),
        (
            ["topology=cpu_2", "topology.nodes=2", "topology.hosts=[a,b]"],
            "topology.nodes=1 topology.workers=1 train.accumulation=2 topology.hosts=null",
        ),
    ],
)
def test_as_many_images_are_taken_in_as_large_micro_batches(said, overrides, changes):
    assert said(*overrides) == changes


def test_a_run_of_one_machine_has_no_fewer(said):
    assert said("topology=cpu_2") is None
