"""From a configuration and facts about the host to a plan of the launch; pure."""

from __future__ import annotations

import math
import os
import socket
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mvit.check import ConfigError, Problem, Rule
from mvit.config import AscendTopology, CpuTopology, Data, ModelConfig, RunConfig, Task, TrainConfig, world_size
from mvit.launch.conventions import same_classes, same_conventions
from mvit.models import spec
from mvit.plan import DatasetFacts, GraphPlan, LaunchPlan

CHECKOUT = Path(__file__).resolve().parents[2]
WORKER = "mvit.train.worker"


@dataclass(frozen=True)
class Host:
    """What the plan needs to know about this machine."""

    python: str
    path: str
    pythonpath: str
    cpu_count: int
    ascend_cards: int
    port: int
    """A port nobody listens on, for msrun's scheduler."""
    node_rank: int
    master_addr: str


def this_host() -> Host:
    """Facts about this machine and its place among several (MVIT_NODE_RANK, MVIT_MASTER_ADDR)."""
    return Host(
        python=sys.executable,
        path=os.environ.get("PATH", os.defpath),
        pythonpath=os.environ.get("PYTHONPATH", ""),
        cpu_count=len(os.sched_getaffinity(0)),
        ascend_cards=sum(path.name.removeprefix("davinci").isdigit() for path in Path("/dev").glob("davinci*")),
        port=_number("MVIT_MASTER_PORT") or _free_port(),
        node_rank=_number("MVIT_NODE_RANK"),
        master_addr=os.environ.get("MVIT_MASTER_ADDR", "127.0.0.1"),
    )


def _number(variable: str) -> int:
    text = os.environ.get(variable) or "0"
    if not text.isdecimal():
        raise ConfigError(Problem(variable, text, "is no number", f"set {variable} to a whole number from 0"))
    return int(text)


def _free_port() -> int:
    """A free port from 20000 up: CPU workers themselves listen from 8118 up."""
    for port in range(20000 + os.getpid() % 10000, 60000):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise RuntimeError("no free port from 20000 to 60000")


def host_rules(host: Host) -> list[Rule]:
    """What this machine must have, judged on the sections that ask for it."""

    def cards(topology: CpuTopology | AscendTopology) -> Iterator[Problem]:
        if topology.kind != "ascend":
            return
        if host.ascend_cards < topology.cards_per_node:
            rule = f"asks for {topology.cards_per_node} Ascend cards a machine, this one has {host.ascend_cards}"
            yield Problem("topology", None, rule, "use topology=cpu, or dry_run=true to see the plan")
        if topology.nodes > 1:
            rule = f"has {topology.nodes} machines: their plans are exact, but more than one is not launched yet"
            remedy = "see a machine's plan with dry_run=true, MVIT_NODE_RANK, MVIT_MASTER_ADDR and MVIT_MASTER_PORT"
            yield Problem("topology", None, rule, remedy)
        if host.node_rank >= topology.nodes:
            rule = f"is no machine of {topology.nodes}"
            yield Problem("MVIT_NODE_RANK", host.node_rank, rule, f"count from 0 to {topology.nodes - 1}")

    def checkpoint(task: Task) -> Iterator[Problem]:
        if task.kind != "evaluate":
            return
        path = Path(task.checkpoint)
        if not path.exists():
            remedy = "name a .safetensors file or the folder of a finished run"
            yield Problem("task.checkpoint", task.checkpoint, "does not exist", remedy)
        elif path.is_dir() and not (path / "checkpoints" / "best.json").exists():
            remedy = "name a run that has evaluated once, or a .safetensors file"
            yield Problem("task.checkpoint", task.checkpoint, "is no run folder with a best checkpoint", remedy)
        elif path.is_file() and path.suffix != ".safetensors":
            remedy = "import it with: python -m mvit weights SRC OUT"
            yield Problem("task.checkpoint", task.checkpoint, "is no .safetensors file", remedy)

    return [(("topology",), cards), (("task",), checkpoint), (("task", "data", "model"), same_conventions)]


def data_rules(facts: DatasetFacts) -> list[Rule]:
    """What the data must have for the recipe."""

    def classes(model: ModelConfig, data: Data) -> Iterator[Problem]:
        found = len(facts.class_names)
        if model.num_classes is not None and model.num_classes != found:
            rule = f"is not the number of classes of {data.kind}, {found}"
            yield Problem("model.num_classes", model.num_classes, rule, f"use {found}, or null")

    def batch(train: TrainConfig) -> Iterator[Problem]:
        if train.global_batch_size > facts.num_train:
            rule = f"is more than the {facts.num_train} training images"
            yield Problem("train.global_batch_size", train.global_batch_size, rule, f"use {facts.num_train} or less")

    def validation(_data: Data) -> Iterator[Problem]:
        if not facts.num_val:
            yield Problem("data", None, "has no readable validation image", "repair them")

    def weights(task: Task) -> Iterator[Problem]:
        yield from same_classes(task, found=len(facts.class_names))

    return [(("data",), validation), (("task",), weights), (("model", "data"), classes), (("train",), batch)]


def make_plan(config: RunConfig, *, host: Host, facts: DatasetFacts, folder: Path) -> LaunchPlan:
    """The plan; `config`, `host` and `facts` have passed their rules."""
    topology = config.topology
    world = world_size(topology)
    batch = config.train.global_batch_size // (world * topology.accumulation)
    steps_per_epoch = facts.num_train // config.train.global_batch_size
    eval_batch = config.train.eval_batch_size
    size = config.data.image_size
    num_classes = len(facts.class_names)
    return LaunchPlan(
        argv=_argv(topology, host=host, folder=folder),
        env=_environment(topology, host=host, folder=folder),
        world_size=world,
        nodes=topology.nodes if topology.kind == "ascend" else 1,
        device="CPU" if topology.kind == "cpu" else "Ascend",
        threads=(topology.threads or max(1, host.cpu_count // world)) if topology.kind == "cpu" else None,
        jit_level=topology.jit_level if topology.kind == "ascend" else None,
        sink=topology.kind == "ascend" and topology.sink,
        global_batch_size=config.train.global_batch_size,
        per_device_batch_size=batch,
        accumulation=topology.accumulation,
        num_classes=num_classes,
        steps_per_epoch=steps_per_epoch,
        total_steps=steps_per_epoch * config.train.epochs,
        eval_steps=math.ceil(math.ceil(facts.num_val / world) / eval_batch),
        graphs=_graphs(config, train_batch=batch, eval_batch=eval_batch, size=size),
        parameters=spec.count_parameters(config.model, num_classes=num_classes),
        macs=spec.count_macs(config.model, num_classes=num_classes, image_size=size),
        dataset=facts,
    )


def _graphs(config: RunConfig, *, train_batch: int, eval_batch: int, size: int) -> tuple[GraphPlan, ...]:
    evaluation = GraphPlan(name="evaluate", images=(eval_batch, 3, size, size))
    if config.task.kind == "evaluate":
        return (evaluation,)
    images = (train_batch, 3, size, size)
    if config.topology.accumulation == 1:
        return (GraphPlan(name="train", images=images), evaluation)
    return (GraphPlan(name="accumulate", images=images), GraphPlan(name="update", images=images), evaluation)


def _argv(topology: CpuTopology | AscendTopology, *, host: Host, folder: Path) -> tuple[str, ...]:
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
        *("--log_dir", str(folder / "logs")),
        "--join=True",  # otherwise msrun returns 0 at once
        *("--cluster_time_out", "300"),
        # Names a rank that does not exist, so that msrun starts no `tail -f`, which would outlive it.
        *("--tail_worker_log", str(world)),
        *("python", "-m", WORKER, str(folder)),
    )


def _environment(topology: CpuTopology | AscendTopology, *, host: Host, folder: Path) -> dict[str, str]:
    environment = {
        "PATH": os.pathsep.join((str(Path(host.python).parent), host.path)),
        "PYTHONPATH": os.pathsep.join(filter(None, (str(CHECKOUT), host.pythonpath))),  # CANN's own stand there
        "PYTHONUNBUFFERED": "1",
        "GLOG_v": "3",  # MindSpore's errors without its warnings
        "MS_EXCEPTION_DISPLAY_LEVEL": "1",
        "MS_OM_PATH": str(folder / "logs"),  # where a failed compile leaves its graph
    }
    if topology.kind == "cpu" and topology.onednn_max_isa != "default":
        environment["ONEDNN_MAX_CPU_ISA"] = topology.onednn_max_isa
    return environment


def describe(config: RunConfig, plan: LaunchPlan, *, estimate: str) -> Iterator[tuple[str, str]]:
    """The plan as lines of (what, value), for `dry_run` and the head of a run."""
    batches = f"{plan.world_size} x {plan.per_device_batch_size}"
    batches += f" x {plan.accumulation} micro-batches" if plan.accumulation > 1 else ""
    yield "model", f"{config.model.name}, {plan.parameters / 1e6:.2f} M parameters, {plan.macs / 1e9:.3f} GMACs/image"
    yield "data", _data_line(config.data, plan.dataset)
    yield "devices", f"{plan.world_size} {plan.device}{f' on {plan.nodes} machines' if plan.nodes > 1 else ''}"
    yield "precision", config.precision.kind + (f", jit level {plan.jit_level}" if plan.jit_level else "")
    if config.task.kind == "train":
        yield "global batch", f"{plan.global_batch_size} = {batches}"
        yield "steps", f"{plan.total_steps} = {config.train.epochs} epochs x {plan.steps_per_epoch}"
    yield "evaluation", f"{plan.eval_steps} steps x {config.train.eval_batch_size} on each device"
    yield "graphs", "; ".join(f"{graph.name} {'x'.join(map(str, graph.images))}" for graph in plan.graphs)
    yield "time", estimate


def _data_line(data: Data, facts: DatasetFacts) -> str:
    line = f"{data.kind}, {facts.num_train} + {facts.num_val} images, {len(facts.class_names)} classes, "
    line += f"{data.image_size}x{data.image_size}"
    return line + (f", {len(facts.skipped)} unreadable images skipped" if facts.skipped else "")
