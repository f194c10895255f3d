"""The worker: `python -m mvit.worker.main RUN_DIR`, alone or under msrun, which also runs it as its scheduler."""

import os
import sys
from pathlib import Path

from mvit.errors import RunDirError
from mvit.process import die_with_parent, launcher_is_gone
from mvit.rundir.frozen import read_run
from mvit.rundir.paths import RunDir
from mvit.worker.heartbeat import Heartbeat
from mvit.worker.stop import Stopped


def main(folder: RunDir) -> None:
    """Do what run.json says. What goes wrong stands in status/<rank>.json and, as a traceback, in the log."""
    die_with_parent()
    if launcher_is_gone():  # before it was asked
        sys.exit(1)
    config, plan = read_run(folder)
    scheduler = os.environ.get("MS_ROLE") == "MS_SCHED"
    rank = int(os.environ.get("RANK_ID", "0")) if plan.world_size > 1 else 0
    status = Heartbeat(
        folder.status / ("scheduler.json" if scheduler else f"{rank}.json"), rank=-1 if scheduler else rank
    )
    try:
        # MindSpore takes seconds to load: only now that this process can be seen, and ends with its parent.
        from mvit.worker import device, train

        if not scheduler:
            device.open_device(plan.device, threads=plan.threads, jit_level=plan.jit_level)
        status.stage("join")
        device.join(plan.world_size)  # never returns in the scheduler
        match config.task.kind:
            case "train":
                train.train(config, plan, folder, rank=rank, status=status)
            case "evaluate":
                train.evaluate_only(config, plan, folder, rank=rank, status=status)
    except Stopped:
        status.stage("stopped")
        return
    except BaseException as error:
        status.failed(error)
        raise
    status.stage("done")


if __name__ == "__main__":
    try:
        main(RunDir(Path(sys.argv[1])))
    except RunDirError as error:
        sys.exit(f"mvit: {error}")
