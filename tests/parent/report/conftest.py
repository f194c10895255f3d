"""Runs for reports: those that break no rule, and those in every state."""

import json

import pytest

from mvit.data import dataset
from mvit.files import write_json
from mvit.parent.host import this_host
from mvit.parent.plan import make_plan
from mvit.parent.report.admissible import _constraints
from mvit.rundir.ending import Failure, record_end
from mvit.rundir.fork import FORKED_FROM, Fork
from mvit.rundir.frozen import Run, write_run
from mvit.rundir.ledger import Ledger, SweepRequest, TrialFrozen
from mvit.rundir.paths import create_run_dir
from mvit.rundir.result import TrainResult, write_result
from tests.conftest import SWEEP

OF_ADMISSIBLE = {"val/acc1": 98.0, "perf/step_ms": 50.0, "perf/images_per_s": 640.0, "perf/other_load_pct": 3.0}


@pytest.fixture
def admissible(configured, tmp_path):
    """Makes a finished run that breaks no rule."""

    def make(name="aaaa", *overrides, acc=98.0, ema=None, place="x", fork=False):
        config = configured(*overrides)
        plan = make_plan(config, host=this_host(), facts=dataset.survey(config.data).facts)
        run = Run(create_run_dir(tmp_path / place / f"20261129-100000-{name}"), config, plan)
        write_run(run)
        versions = {package: found[0] for package, found in _constraints().items() if package in ("mindspore", "numpy")}
        made_of = {"commit": "a" * 40, "num_changed": 0, "patch_cut": False, "untracked": [], "versions": versions}
        made_from = Fork(folder="/runs/x/20261128-100000-cafe", step=80, run_sha256="f" * 64)
        write_json(run.folder.provenance, {**made_of, **({FORKED_FROM: made_from.model_dump()} if fork else {})})
        run.folder.journal.write_text('{"step": 1, "metrics": {"val/acc1": 98.0}}\n')
        write_json(run.folder.confusion, {"counts": [[plan.dataset.num_val]]})
        run.folder.attempt_logs(1).mkdir()
        metrics = {**OF_ADMISSIBLE, "val/acc1": acc} | ({} if ema is None else {"val/ema_acc1": ema})
        write_result(run.folder, TrainResult(task="train", steps=440, metrics=metrics, graphs={}, compiled=1))
        record_end(run.folder, "FINISHED", exit_code=0)
        return run.folder

    return make


@pytest.fixture
def averaged(admissible):
    """Three seeds with averaged weights, which are better and nearer to each other than the weights."""
    scores = ((1, 80.0, 91.0), (2, 90.0, 91.2), (3, 70.0, 91.1))
    return [admissible(f"000{seed}", f"seed={seed}", acc=acc, ema=ema) for seed, acc, ema in scores]


METRICS = {"val/acc1": 98.0, "val/acc5": 99.9, "best/val_acc1": 98.5, "perf/step_ms": 50.0, "perf/images_per_s": 640.0}


@pytest.fixture
def made(configured, tmp_path):
    """Makes a run at a place below `tmp_path`; with an accuracy it is finished."""

    def make(place, *overrides, acc=None, failure=None):
        config = configured(*overrides)
        plan = make_plan(config, host=this_host(), facts=dataset.survey(config.data).facts)
        run = Run(create_run_dir(tmp_path / place), config, plan)
        write_run(run)
        if acc is not None:
            metrics = {**METRICS, "val/acc1": acc, "best/val_acc1": acc + 0.5}
            write_result(run.folder, TrainResult(task="train", steps=1, metrics=metrics, graphs={}, compiled=1))
            record_end(run.folder, "FINISHED", exit_code=0)
        if failure:
            record_end(run.folder, "FAILED", exit_code=1, failure=failure)
        return run

    return make


@pytest.fixture
def every(made, tmp_path):
    """A finished run, a failed one, one that has not begun, a damaged one, one of another version, and a sweep."""
    made("digits/20261129-100000-aaaa", acc=97.0)
    made("digits/20261129-100100-bbbb", "model=x_small", failure=Failure("nan", 0, "step", "the loss is not finite"))
    made("digits/20261129-100200-cccc")
    damaged = made("digits/20261129-100300-dddd").folder
    damaged.run.write_text(damaged.run.read_text()[:100])
    other = made("digits/20261129-100400-eeee").folder
    write_json(other.run, {**json.loads(other.run.read_text()), "schema": 1})
    sweep = tmp_path / "digits/20261129-100500-ffff"
    frozen = []
    for number, rate in enumerate(("3e-3", "4e-3")):
        name = f"{number}-lr={rate}-ab{number}0"
        made(f"digits/{sweep.name}/{name}", f"optimizer.lr={rate}", acc=98.0 + number)
        frozen.append(TrialFrozen(trial=number, folder=name, overrides=(f"optimizer.lr={rate}",)))
    Ledger(sweep).append(SweepRequest(argv=(), overrides=(), sweep=SWEEP, slots=("",)), *frozen)
    return tmp_path
