"""A run on several machines that is to go on with fewer of them."""

from __future__ import annotations

from mvit.config import AscendTopology, TrainRun, world_size
from mvit.console import mvit_command
from mvit.errors import ConfigError
from mvit.parent.freeze import plan_launch
from mvit.parent.host import this_host
from mvit.parent.request.compose import override
from mvit.rundir.frozen import Run


def command_on_fewer(run: Run) -> str | None:
    """What continues the run as a new one on the most machines below those it has, with the same losses.

    The processes that are left take more micro-batches of the same size, so that neither the global batch nor what
    BatchNorm sees changes. None where the batch does not divide so, or another rule of the run forbids it.
    """
    config = run.config
    if not isinstance(config, TrainRun):
        return None
    topology, batches = config.topology, world_size(config.topology) * config.train.accumulation
    for nodes in range(topology.nodes - 1, 0, -1):
        workers = world_size(topology) // topology.nodes * nodes
        if batches % workers:
            continue
        changes = [f"topology.nodes={nodes}", f"train.accumulation={batches // workers}"]
        if not isinstance(topology, AscendTopology):
            changes.insert(1, f"topology.workers={workers}")
        if topology.hosts is not None:
            if nodes > 1:  # which of them are left, a person knows
                continue
            changes.append("topology.hosts=null")
        try:
            plan_launch(override(config, changes), host=this_host())
        except ConfigError:
            continue
        return mvit_command("resume", run.folder.path, "--fork", *changes)
    return None
