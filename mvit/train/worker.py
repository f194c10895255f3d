"""The worker: `python -m mvit.train.worker RUN_DIR`, alone or under msrun, which also runs it as its scheduler."""

import os
import sys
from pathlib import Path

from mvit.rundir import RunDir, RunDirError, read_run


def main() -> int:
    """Exit codes: 0 done, 1 failed (the reason stands in status/<rank>.json and in the log)."""
    from mvit.train import device  # MindSpore is loaded here, after the arguments were looked at

    device.die_with_parent()
    folder = RunDir(Path(sys.argv[1]))
    config, plan = read_run(folder)
    if os.environ.get("MS_ROLE") == "MS_SCHED":
        from mvit.train.status import Status

        Status(folder.status / "scheduler.json", rank=-1).stage("serve")
        device.join(plan.world_size)
        return 0

    from mvit.train.status import Status

    rank = int(os.environ.get("RANK_ID", "0")) if plan.world_size > 1 else 0
    status = Status(folder.status / f"{rank}.json", rank=rank)
    try:
        from mvit.train.loop import evaluate_only, train

        device.open_device(plan.device, threads=plan.threads, jit_level=plan.jit_level)
        status.stage("join")
        device.join(plan.world_size)
        match config.task.kind:
            case "train":
                train(config, plan, folder, rank=rank, status=status)
            case "evaluate":
                evaluate_only(config, plan, folder, rank=rank, status=status)
    except BaseException as error:
        status.failed(error)
        raise
    status.stage("done")
    return 0


if __name__ == "__main__":
    try:
        code = main()
    except RunDirError as error:
        code = f"mvit: {error}"
    sys.exit(code)
