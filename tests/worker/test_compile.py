"""Graphs are compiled for what runs: no step compiles another one, and a check leaves everything as it was."""

import os
from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import pytest

from mvit.compile_cache.store import STORE_VARIABLE
from mvit.plan import GraphPlan
from tests.worker.test_step import BATCH, SIDE, make_batches, make_step, run_step

pytestmark = pytest.mark.mindspore


def graphs(accumulation):
    images = (BATCH // accumulation, SIDE, SIDE, 3)
    if accumulation == 1:
        return [GraphPlan(name="train", mode="train", images=images)]
    return [
        GraphPlan(name="accumulate", mode="train", images=images),
        GraphPlan(name="update", mode="train", images=None),
    ]


class Events(list):
    def event(self, event, **fields):
        self.append((event, fields))


@pytest.fixture
def session(monkeypatch):
    monkeypatch.delenv(STORE_VARIABLE, raising=False)

    def make(planned):
        return SimpleNamespace(run=SimpleNamespace(plan=SimpleNamespace(graphs=planned)), journal=Events())

    return make


@pytest.mark.parametrize("accumulation", [1, 2])
def test_a_step_runs_the_graphs_that_were_compiled_for_it(mindspore, session, accumulation):
    from mvit.worker.compile import compile_graphs
    from mvit.worker.evaluate import EvaluateStep

    step, net = make_step(mindspore, accumulation=accumulation)
    evaluate = EvaluateStep(net, normalise=step.cells[0].gradients.normalise, num_classes=5)
    planned = [*graphs(accumulation), GraphPlan(name="evaluate", mode="inference", images=(BATCH, SIDE, SIDE, 3))]
    made = session(planned)
    compiled = compile_graphs(made, train=step, evaluate=evaluate)
    assert [fields["graph"] for _, fields in made.journal] == list(compiled.seconds) == [g.name for g in planned]
    assert all(value > 0 for value in compiled.seconds.values())
    assert compiled.metrics()["perf/compile_cached"] == 0.0
    assert step.compiled() == accumulation
    run_step(step, make_batches(2), accumulation=accumulation)
    assert step.compiled() == accumulation


def test_a_graph_that_the_task_does_not_run_is_a_defect_of_the_plan(mindspore, session):
    from mvit.worker.compile import compile_graphs
    from mvit.worker.evaluate import EvaluateStep

    step, net = make_step(mindspore)
    evaluate = EvaluateStep(net, normalise=step.cells[0].gradients.normalise, num_classes=5)
    with pytest.raises(AssertionError, match="does not run: train"):
        compile_graphs(session(graphs(1)), evaluate=evaluate)


@pytest.mark.parametrize("accumulation", [1, pytest.param(2, marks=pytest.mark.long)])
def test_a_check_tells_graphs_apart_and_leaves_everything_as_it_was(mindspore, accumulation):
    from mvit.worker.compile import Graphs
    from mvit.worker.evaluate import EvaluateStep

    def check(**options):
        step, net = make_step(mindspore, accumulation=accumulation, **options)
        evaluate = EvaluateStep(net, normalise=step.cells[0].gradients.normalise, num_classes=5)
        made = Graphs(
            [*graphs(accumulation), GraphPlan(name="evaluate", mode="inference", images=(BATCH, SIDE, SIDE, 3))],
            evaluate,
            step,
        )
        parameters = {p.name: p for cell in step.cells for p in cell.get_parameters()}
        before = {name: p.asnumpy().copy() for name, p in parameters.items()}
        made.compile(lambda *_: None)
        first, second = made.check(), made.check()
        made.forget()
        made.compile(lambda *_: None)
        assert first == second == made.check()
        assert step.compiled() == accumulation
        assert len(before) > 4
        for name, parameter in parameters.items():
            np.testing.assert_array_equal(parameter.asnumpy(), before[name], err_msg=name)
        return first

    assert check() == check()
    assert check() != check(clip_norm=0.01)
    assert check() != check(ema_momentum=0.1)


def test_phases_are_those_that_mindspore_tells_meanwhile(mindspore, stderr_file):
    from mvit.worker.compile_phases import recorded_phases

    line = "[V1] PIPELINE [profile.h:287] DisplayVlog] [MsProfile] [{}] {} costs {} msec.\n"
    os.write(2, line.format("compile_action", "optimize", 9e9).encode())
    with recorded_phases() as phases:
        for kind, name, cost in (
            ("compile_action", "optimize", "1500"),
            ("compile_irpass", "opt_a", "1400"),  # a part of optimize
            ("compile_action", "task_emit", "2e-05"),
            ("compile_action", "optimize", "250.5"),
        ):
            os.write(2, line.format(kind, name, cost).encode())
        assert phases == {}
    os.write(2, line.format("compile_action", "validate", 1).encode())
    assert phases == {"optimize": 1.7505, "task_emit": 2e-8}


def test_mindspore_is_verbose_for_the_compilation_alone(mindspore, stderr_file):
    from mvit.worker.compile_phases import recorded_phases

    class Double(mindspore.nn.Cell):
        def construct(self, x):
            return 2 * x

    cell, x = Double(), mindspore.Tensor(np.ones(3, np.float32))
    with recorded_phases() as phases:
        cell.compile(x)
    assert {"type_inference", "optimize", "task_emit"} <= set(phases)
    logged = stderr_file.read_bytes()
    cell(x)
    Double().compile(x)
    assert stderr_file.read_bytes() == logged


def test_without_a_log_file_there_are_no_phases(mindspore):
    from mvit.worker.compile_phases import recorded_phases

    read, write = os.pipe()
    with replaced_stderr(write), recorded_phases() as phases:
        os.write(2, b"[compile_action] optimize costs 1 msec.")
    assert phases == {}
    for end in (read, write):
        os.close(end)


@contextmanager
def replaced_stderr(descriptor):
    before = os.dup(2)
    os.dup2(descriptor, 2)
    try:
        yield
    finally:
        os.dup2(before, 2)
        os.close(before)


@pytest.fixture
def stderr_file(tmp_path):
    path = tmp_path / "worker.log"
    with path.open("ab") as file, replaced_stderr(file.fileno()):
        yield path
