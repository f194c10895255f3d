"""The worker: `python -m mvit.worker.main RUN_DIR`, alone or under msrun, which also runs it as its scheduler."""

import os
import sys
from pathlib import Path

import mvit.compile_cache.key  # noqa: F401  digests the sources now, before they are loaded
from mvit.config import BenchmarkRun, EvaluateRun, ExportRun, PredictRun, ProfileRun, TrainRun
from mvit.errors import RunDirError
from mvit.process import die_with_parent, launcher_is_gone
from mvit.rundir.frozen import read_run
from mvit.rundir.paths import RunDir
from mvit.rundir.status import SCHEDULER, Stage
from mvit.worker.faults import read_fault
from mvit.worker.heartbeat import Heartbeat
from mvit.worker.stop import Stopped


def main(folder: RunDir) -> None:
    """Do what run.json says. A failure is reported in status/<rank>.json and, with its traceback, in the log."""
    die_with_parent()
    if launcher_is_gone():  # before this process could ask to die with it
        sys.exit(1)
    run = read_run(folder)
    is_scheduler = os.environ.get("MS_ROLE") == "MS_SCHED"
    rank = int(os.environ.get("RANK_ID", "0")) if run.plan.world_size > 1 else 0
    if is_scheduler:
        heartbeat = Heartbeat(folder.status / "scheduler.json", rank=SCHEDULER)
    else:
        heartbeat = Heartbeat(folder.status / f"{rank}.json", rank=rank, fault=read_fault(os.environ, rank=rank))
    try:
        # MindSpore takes seconds to load: only now that this process can be seen, and ends with its parent.
        from mvit.worker import benchmark, collectives, device, evaluate, export, group, predict, profile, train

        if not is_scheduler:
            device.open_device(run.plan.device, threads=run.plan.threads, jit_level=run.plan.jit_level)
        heartbeat.stage(Stage.JOIN)
        collectives.join(run.plan.world_size)  # never returns in the scheduler
        with group.losses_named():
            match run.config:
                case TrainRun():
                    train.train(run, rank=rank, heartbeat=heartbeat)
                case EvaluateRun():
                    evaluate.evaluate(run, rank=rank, heartbeat=heartbeat)
                case PredictRun():
                    predict.predict(run, run.config, rank=rank, heartbeat=heartbeat)
                case ExportRun():
                    export.export(run, run.config, rank=rank, heartbeat=heartbeat)
                case BenchmarkRun():
                    benchmark.benchmark(run, run.config, rank=rank, heartbeat=heartbeat)
                case ProfileRun():
                    profile.profile(run, run.config, heartbeat=heartbeat)
    except Stopped:
        heartbeat.stage(Stage.STOPPED)
        return
    except BaseException as error:
        heartbeat.failed(error)
        raise
    heartbeat.stage(Stage.DONE)


if __name__ == "__main__":
    try:
        main(RunDir(Path(sys.argv[1])))
    except RunDirError as error:
        sys.exit(f"mvit: {error}")
