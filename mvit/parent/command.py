"""The command that one attempt of a run starts."""

from __future__ import annotations

import json
import math
import os
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from mvit.compile_cache.store import STORE_VARIABLE
from mvit.config import (
    AscendTopology,
    CpuTopology,
    world_size,
)
from mvit.models.kernels.build import KERNELS_VARIABLE
from mvit.parent.host import Host
from mvit.parent.slot import Slot
from mvit.places import CHECKOUT
from mvit.rundir.frozen import Run

WORKER = "mvit.worker.main"


@dataclass(frozen=True)
class Command:
    """What one attempt starts; the next one has its own log folder and port."""

    argv: tuple[str, ...]
    env: dict[str, str]
    """What is added to the environment of the workers."""
    logs: Path
    workers: int
    """Of all nodes."""
    port: int | None
    """Where msrun's scheduler listens; None without msrun."""
    slot: Slot = field(default_factory=Slot)
    nodes: int = 1

    def shown(self) -> Iterator[tuple[str, str]]:
        """The command and what it adds to the environment, as labels and values, to be pasted."""
        yield "command", shlex.join(self.argv)
        for index, (name, value) in enumerate(self.env.items()):
            yield "" if index else "environment", f"{name}={shlex.quote(value)}"

    @property
    def log(self) -> Path:
        """What the command itself says: msrun, or a worker without it. Each node has its own."""
        rank = self.slot.node_rank
        return self.logs / (f"launch-node-{rank}.log" if rank else "launch.log")


def make_command(
    run: Run,
    *,
    host: Host,
    slot: Slot,
    port: int,
    attempt: int,
    kernels: Path | None = None,
    graphs: Path | None = None,
) -> Command:
    """The command of an attempt of a run, counted from 1; `port` is for msrun's scheduler.

    `kernels` is the library that the workers load, and `graphs` the store of compiled ones: theirs to use, not to look
    for.
    """
    topology, logs = run.config.topology, run.folder.attempt_logs(attempt)
    join_s = run.config.limits.join_s
    return Command(
        argv=_argv(topology, host=host, slot=slot, port=port, folder=run.folder.path, logs=logs, join_s=join_s),
        env={
            **worker_environment(topology, host=host, logs=logs),
            **({STORE_VARIABLE: str(graphs)} if graphs else {}),
            **({KERNELS_VARIABLE: str(kernels)} if kernels else {}),
            **slot.environment(),
        },
        logs=logs,
        workers=run.plan.world_size,
        port=port if run.plan.world_size > 1 else None,
        slot=slot,
        nodes=run.plan.nodes,
    )


def _argv(
    topology: CpuTopology | AscendTopology,
    *,
    host: Host,
    slot: Slot,
    port: int,
    folder: Path,
    logs: Path,
    join_s: float,
) -> tuple[str, ...]:
    """The command line of this node.

    World size 1 needs no msrun. msrun looks up the word `python` on PATH, whose first entry is this interpreter's
    folder (see `worker_environment`).
    """
    world = world_size(topology)
    if world == 1:
        return (host.python, "-m", WORKER, str(folder))
    nodes = topology.nodes
    return (
        "msrun",
        *(_bindings(topology, slot) if topology.kind == "ascend" else ()),
        *("--worker_num", str(world)),
        *("--local_worker_num", str(world // nodes)),
        *(("--node_rank", str(slot.node_rank)) if nodes > 1 else ()),
        *("--master_addr", slot.master_addr),
        *("--master_port", str(port)),
        *("--log_dir", str(logs)),
        "--join=True",  # otherwise msrun returns 0 at once
        *("--cluster_time_out", str(math.ceil(join_s) + 60)),  # longer than our own limit, which says who is missing
        # Names a rank that does not exist, so that msrun starts no `tail -f`, which would outlive it.
        *("--tail_worker_log", str(world)),
        *("python", "-m", WORKER, str(folder)),
    )


def _bindings(topology: AscendTopology, slot: Slot) -> Iterator[str]:
    """Which processors and cards the processes get; msrun wants the ids of the cards, not the ranks."""
    if topology.bind_core:
        value = "True"
        if topology.cores is not None:
            cards = range(topology.cards_per_node) if slot.cards is None else slot.cards
            value = json.dumps({f"device{card}": [cores] for card, cores in zip(cards, topology.cores, strict=True)})
        yield f"--bind_core={value}"
    if topology.rank_table:
        yield f"--rank_table_file={topology.rank_table}"


def worker_environment(topology: CpuTopology | AscendTopology, *, host: Host, logs: Path) -> dict[str, str]:
    """What every worker of the topology gets on this host."""
    checkout = str(CHECKOUT or "")  # an installed package is found without
    environment = {
        "PATH": os.pathsep.join((str(Path(host.python).parent), host.path)),
        "PYTHONPATH": os.pathsep.join(filter(None, (checkout, host.pythonpath))),  # holds CANN's own
        "PYTHONUNBUFFERED": "1",
        "GLOG_v": "3",  # MindSpore's errors without its warnings
        "MS_EXCEPTION_DISPLAY_LEVEL": "1",
        "MS_OM_PATH": str(logs),  # where a failed compile leaves its graph
        # A compilation allocates and frees millions of small blocks; without this, glibc takes a fifth of its time.
        "GLIBC_TUNABLES": ":".join(filter(None, ("glibc.malloc.tcache_count=60000", host.glibc_tunables))),
    }
    if topology.kind == "cpu":
        # Threads of the fused kernels that wait spin otherwise, against MindSpore's own and those of other workers.
        environment["OMP_WAIT_POLICY"] = "passive"
        if topology.onednn_max_isa != "default":
            environment["ONEDNN_MAX_CPU_ISA"] = topology.onednn_max_isa
    else:
        if topology.hccl_connect_s is not None:
            environment["HCCL_CONNECT_TIMEOUT"] = str(topology.hccl_connect_s)
        if topology.hccl_exec_s is not None:
            environment["HCCL_EXEC_TIMEOUT"] = str(topology.hccl_exec_s)
        if topology.fault_tolerance:
            environment["MS_ENABLE_TFT"] = f"{{{','.join(f'{kind}:1' for kind in topology.fault_tolerance)}}}"
    return environment
