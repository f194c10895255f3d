"""Runs that break no rule."""

import pytest

from mvit.data import dataset
from mvit.files import write_json
from mvit.parent.host import this_host
from mvit.parent.plan import make_plan
from mvit.parent.report.admissible import _constraints
from mvit.rundir.ending import record_end
from mvit.rundir.frozen import Run, write_run
from mvit.rundir.paths import create_run_dir
from mvit.rundir.result import TrainResult, write_result

METRICS = {"val/acc1": 98.0, "perf/step_ms": 50.0, "perf/images_per_s": 640.0, "perf/other_load_pct": 3.0}


@pytest.fixture
def admissible(configured, tmp_path):
    """Makes a finished run that breaks no rule."""

    def make(name="aaaa", *overrides, acc=98.0, place="x"):
        config = configured(*overrides)
        plan = make_plan(config, host=this_host(), facts=dataset.survey(config.data).facts)
        run = Run(create_run_dir(tmp_path / place / f"20261129-100000-{name}"), config, plan)
        write_run(run)
        versions = {package: found[0] for package, found in _constraints().items() if package in ("mindspore", "numpy")}
        made_of = {"commit": "a" * 40, "num_changed": 0, "patch_cut": False, "untracked": [], "versions": versions}
        write_json(run.folder.provenance, made_of)
        run.folder.journal.write_text('{"step": 1, "metrics": {"val/acc1": 98.0}}\n')
        write_json(run.folder.confusion, {"counts": [[plan.dataset.num_val]]})
        run.folder.attempt_logs(1).mkdir()
        metrics = {**METRICS, "val/acc1": acc}
        write_result(run.folder, TrainResult(task="train", steps=440, metrics=metrics, graphs={}, compiled=1))
        record_end(run.folder, "FINISHED", exit_code=0)
        return run.folder

    return make
