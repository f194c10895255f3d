"""Graphs are compiled for what runs: no step compiles another one."""

import pytest

from mvit.plan import GraphPlan
from tests.worker.test_step import BATCH, SIDE, make_batches, make_step, run_step

pytestmark = pytest.mark.mindspore


def graphs(accumulation):
    images = (BATCH // accumulation, SIDE, SIDE, 3)
    if accumulation == 1:
        return [GraphPlan(name="train", images=images)]
    return [GraphPlan(name="accumulate", images=images), GraphPlan(name="update", images=None)]


@pytest.mark.parametrize("accumulation", [1, 2])
def test_a_step_runs_the_graphs_that_were_compiled_for_it(mindspore, accumulation):
    from mvit.worker.compile import compile_graphs
    from mvit.worker.evaluate import EvaluateStep

    step, net = make_step(mindspore, accumulation=accumulation)
    evaluate = EvaluateStep(net, normalise=step.cells[0].gradients.normalise, num_classes=5)
    planned = [*graphs(accumulation), GraphPlan(name="evaluate", images=(BATCH, SIDE, SIDE, 3))]
    seconds = dict(compile_graphs(planned, train=step, evaluate=evaluate))
    assert list(seconds) == [graph.name for graph in planned]
    assert all(value > 0 for value in seconds.values())
    assert step.compiled() == accumulation
    run_step(step, make_batches(2), accumulation=accumulation)
    assert step.compiled() == accumulation


def test_a_graph_that_the_task_does_not_run_is_a_defect_of_the_plan(mindspore):
    from mvit.worker.compile import compile_graphs
    from mvit.worker.evaluate import EvaluateStep

    step, net = make_step(mindspore)
    evaluate = EvaluateStep(net, normalise=step.cells[0].gradients.normalise, num_classes=5)
    with pytest.raises(AssertionError, match="does not run: train"):
        dict(compile_graphs(graphs(1), evaluate=evaluate))
