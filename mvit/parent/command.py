"""The command that one attempt of a run starts."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path

from mvit.config import (
    AscendTopology,
    CpuTopology,
    RunConfig,
    world_size,
)
from mvit.parent.host import CHECKOUT, Host
from mvit.rundir.paths import RunDir

WORKER = "mvit.worker.main"


@dataclass(frozen=True)
class Command:
    """What one attempt starts; the next one has its own log folder and port."""

    argv: tuple[str, ...]
    env: dict[str, str]
    """What is added to the environment of the workers."""
    logs: Path
    workers: int
    port: int | None
    """Where msrun's scheduler listens; None without msrun."""


def make_command(config: RunConfig, *, host: Host, folder: RunDir, attempt: int) -> Command:
    """The command of an attempt of a run, counted from 1, on this machine."""
    topology, logs = config.topology, folder.attempt_logs(attempt)
    world = world_size(topology)
    return Command(
        argv=_argv(topology, host=host, folder=folder.path, logs=logs, join_s=config.limits.join_s),
        env=_environment(topology, host=host, logs=logs),
        logs=logs,
        workers=world,
        port=host.port if world > 1 else None,
    )


def _argv(
    topology: CpuTopology | AscendTopology, *, host: Host, folder: Path, logs: Path, join_s: float
) -> tuple[str, ...]:
    """The command of this machine.

    World size 1 needs no msrun. Under msrun the word `python` is found on PATH, whose first entry `_environment` makes
    this interpreter's folder.
    """
    world = world_size(topology)
    if world == 1:
        return (host.python, "-m", WORKER, str(folder))
    bind = topology.kind == "ascend" and topology.bind_core
    nodes = topology.nodes if topology.kind == "ascend" else 1
    return (
        "msrun",
        *(("--bind_core=True",) if bind else ()),
        *("--worker_num", str(world)),
        *("--local_worker_num", str(world // nodes)),
        *(("--node_rank", str(host.node_rank)) if nodes > 1 else ()),
        *("--master_addr", host.master_addr),
        *("--master_port", str(host.port)),
        *("--log_dir", str(logs)),
        "--join=True",  # otherwise msrun returns 0 at once
        *("--cluster_time_out", str(math.ceil(join_s) + 60)),  # after our own limit, which says who is missing
        # Names a rank that does not exist, so that msrun starts no `tail -f`, which would outlive it.
        *("--tail_worker_log", str(world)),
        *("python", "-m", WORKER, str(folder)),
    )


def _environment(topology: CpuTopology | AscendTopology, *, host: Host, logs: Path) -> dict[str, str]:
    environment = {
        "PATH": os.pathsep.join((str(Path(host.python).parent), host.path)),
        "PYTHONPATH": os.pathsep.join(filter(None, (str(CHECKOUT), host.pythonpath))),  # CANN's own stand there
        "PYTHONUNBUFFERED": "1",
        "GLOG_v": "3",  # MindSpore's errors without its warnings
        "MS_EXCEPTION_DISPLAY_LEVEL": "1",
        "MS_OM_PATH": str(logs),  # where a failed compile leaves its graph
    }
    if topology.kind == "cpu" and topology.onednn_max_isa != "default":
        environment["ONEDNN_MAX_CPU_ISA"] = topology.onednn_max_isa
    return environment
