"""From a configuration and facts about the host to a plan of the launch; pure."""

from __future__ import annotations

import math
import os
import secrets
import socket
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from mvit.check import ConfigError, Problem, Rule, asked_batches
from mvit.config import (
    AscendTopology,
    Bf16Precision,
    CpuTopology,
    Data,
    DynamicLossScale,
    FixedLossScale,
    Fp16Precision,
    Fp32Precision,
    Init,
    ModelConfig,
    Precision,
    RandomInit,
    RunConfig,
    Schedule,
    Task,
    TrainConfig,
    TrainTask,
    world_size,
)
from mvit.launch.conventions import fits_network, same_classes, same_conventions, starts_from
from mvit.launch.result import PastRuns
from mvit.models import spec
from mvit.plan import BucketPlan, DatasetFacts, GraphPlan, LaunchPlan
from mvit.rundir import RunDir
from mvit.schedule import scaled_lr

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
    """For msrun's scheduler: tried first, where somebody listens on it another one is taken."""
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
        port=_number("MVIT_MASTER_PORT") or free_port(),
        node_rank=_number("MVIT_NODE_RANK"),
        master_addr=os.environ.get("MVIT_MASTER_ADDR", "127.0.0.1"),
    )


def _number(variable: str) -> int:
    text = os.environ.get(variable) or "0"
    if not text.isdecimal():
        raise ConfigError(Problem(variable, text, "is no number", f"set {variable} to a whole number from 0"))
    return int(text)


def free_port() -> int:
    """A free port from 20000 up: CPU workers themselves listen from 8118 up. Drawn, as others search too."""
    begin = 20000 + secrets.randbelow(10000)
    for port in range(begin, 60000):
        if is_free(port):
            return port
    raise RuntimeError(f"no free port from {begin} to 60000")


def is_free(port: int) -> bool:
    """Whether nobody listens on the port, at this moment."""
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


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

    def checkpoint(key: str, section: Task | Init) -> Iterator[Problem]:
        if isinstance(section, (TrainTask, RandomInit)):
            return
        path, given = Path(section.checkpoint), f"{key}.checkpoint"
        if not path.exists():
            remedy = "name a .safetensors file or the folder of a finished run"
            yield Problem(given, section.checkpoint, "does not exist", remedy)
        elif path.is_file() and path.suffix != ".safetensors":
            remedy = "import it with: python -m mvit weights SRC OUT"
            yield Problem(given, section.checkpoint, "is no .safetensors file", remedy)

    return [
        (("topology",), cards),
        (("task",), partial(checkpoint, "task")),
        (("init",), partial(checkpoint, "init")),
        (("task", "data", "model"), partial(same_conventions, "task")),
        (("init", "data", "model"), partial(same_conventions, "init")),
        (("task", "model"), partial(fits_network, "task")),
        (("init", "model"), partial(fits_network, "init")),
    ]


def data_rules(facts: DatasetFacts) -> list[Rule]:
    """What the data must have for the recipe."""

    def classes(model: ModelConfig, data: Data) -> Iterator[Problem]:
        found = len(facts.class_names)
        if model.num_classes is not None and model.num_classes != found:
            rule = f"is not the number of classes of {data.kind}, {found}"
            yield Problem("model.num_classes", model.num_classes, rule, f"use {found}, or null")

    def batch(train: TrainConfig, task: Task) -> Iterator[Problem]:
        if task.kind != "train":
            return
        asked = asked_batches(train)
        for path, size in asked:
            if size > facts.num_train:
                rule = f"is more than the {facts.num_train} training images"
                yield Problem(path, size, rule, f"use {facts.num_train} or less")
        together = sum(size for _, size in asked)
        if len(asked) > 1 and max(size for _, size in asked) <= facts.num_train < together:
            rule = f"are more than the {facts.num_train} training images together: a size would never have its turn"
            yield Problem("train.buckets", together, rule, "use smaller batches or fewer sizes")

    def warmup(schedule: Schedule, train: TrainConfig, data: Data, task: Task) -> Iterator[Problem]:
        if task.kind != "train" or schedule.kind == "one_cycle" or schedule.warmup_unit == "epochs":
            return
        buckets = _buckets(train, data.image_size, parts=1, facts=facts)
        steps = train.epochs * sum(bucket.steps_per_epoch for bucket in buckets)
        if schedule.warmup > steps:
            rule = f"is longer than the {steps} steps of training"
            yield Problem("schedule.warmup", schedule.warmup, rule, f"use {steps} or less, or raise train.epochs")

    def validation(_data: Data) -> Iterator[Problem]:
        if not facts.num_val:
            yield Problem("data", None, "has no readable validation image", "repair them")

    def weights(task: Task) -> Iterator[Problem]:
        yield from same_classes(task, found=len(facts.class_names))

    return [
        (("data",), validation),
        (("task",), weights),
        (("model", "data"), classes),
        (("train", "task"), batch),
        (("schedule", "train", "data", "task"), warmup),
    ]


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


def make_plan(config: RunConfig, *, host: Host, facts: DatasetFacts) -> LaunchPlan:
    """The plan; `config`, `host` and `facts` have passed their rules."""
    topology = config.topology
    world = world_size(topology)
    buckets = _buckets(config.train, config.data.image_size, parts=world * topology.accumulation, facts=facts)
    steps_per_epoch = sum(bucket.steps_per_epoch for bucket in buckets)
    total_steps = steps_per_epoch * config.train.epochs
    num_classes = len(facts.class_names)
    return LaunchPlan(
        world_size=world,
        nodes=topology.nodes if topology.kind == "ascend" else 1,
        device="CPU" if topology.kind == "cpu" else "Ascend",
        threads=(topology.threads or max(1, host.cpu_count // world)) if topology.kind == "cpu" else None,
        jit_level=topology.jit_level if topology.kind == "ascend" else None,
        sink=topology.kind == "ascend" and topology.sink,
        buckets=buckets,
        accumulation=topology.accumulation,
        num_classes=num_classes,
        steps_per_epoch=steps_per_epoch,
        total_steps=total_steps,
        last_step=min(total_steps, config.train.max_steps or total_steps),
        peak_lr=scaled_lr(config.optimizer, global_batch_size=config.train.global_batch_size),
        eval_steps=math.ceil(math.ceil(facts.num_val / world) / config.train.eval_batch_size),
        graphs=_graphs(config, buckets),
        parameters=spec.count_parameters(config.model, num_classes=num_classes),
        trained_parameters=spec.count_parameters(config.model, num_classes=num_classes, without=config.train.freeze),
        macs=spec.count_macs(config.model, num_classes=num_classes, image_size=config.data.image_size),
        dataset=facts,
    )


def _buckets(train: TrainConfig, image_size: int, *, parts: int, facts: DatasetFacts) -> tuple[BucketPlan, ...]:
    """The shapes of training batches, and how many steps of an epoch each has.

    Each bucket has as many steps as fit when all have the same number, and then, in their order, one more while
    samples are left for it: an epoch has the same number of steps on every rank and in every epoch.
    """
    asked = [(bucket.image_size, bucket.global_batch_size) for bucket in train.buckets]
    asked = asked or [(image_size, train.global_batch_size)]
    rounds, left = divmod(facts.num_train, sum(batch for _, batch in asked))
    planned: list[BucketPlan] = []
    for size, batch in asked:
        extra = int(batch <= left)
        left -= extra * batch
        planned.append(
            BucketPlan(
                image_size=size,
                global_batch_size=batch,
                per_device_batch_size=batch // parts,
                steps_per_epoch=rounds + extra,
            )
        )
    return tuple(planned)


def _graphs(config: RunConfig, buckets: Sequence[BucketPlan]) -> tuple[GraphPlan, ...]:
    size = config.data.image_size
    evaluation = GraphPlan(name="evaluate", images=(config.train.eval_batch_size, size, size, 3))
    if config.task.kind == "evaluate":
        return (evaluation,)
    accumulates = config.topology.accumulation > 1
    name = "accumulate" if accumulates else "train"
    shapes = [(bucket.per_device_batch_size, bucket.image_size, bucket.image_size, 3) for bucket in buckets]
    graphs = [GraphPlan(name=f"{name}-{shape[1]}" if len(shapes) > 1 else name, images=shape) for shape in shapes]
    if accumulates:
        graphs.append(GraphPlan(name="update", images=None))
    return (*graphs, evaluation)


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


def describe(config: RunConfig, plan: LaunchPlan, *, past: PastRuns) -> Iterator[tuple[str, str]]:
    """The plan as lines of (what, value), for `dry_run` and the head of a run."""
    trained = "" if plan.trained_parameters == plan.parameters else f" ({plan.trained_parameters / 1e6:.2f} M trained)"
    size = f"{plan.parameters / 1e6:.2f} M parameters{trained}"
    yield "model", f"{config.model.name}, {size}, {plan.macs / 1e9:.3f} GMACs/image"
    if config.init.kind == "weights":
        yield "weights", starts_from(config.init, num_classes=plan.num_classes)
    yield "data", _data_line(config.data, plan.dataset)
    yield "devices", f"{plan.world_size} {plan.device}{f' on {plan.nodes} machines' if plan.nodes > 1 else ''}"
    yield "precision", _precision_line(config.precision) + (f", jit level {plan.jit_level}" if plan.jit_level else "")
    if config.task.kind == "train":
        for bucket in plan.buckets:
            batches = f"{plan.world_size} x {bucket.per_device_batch_size}"
            batches += f" x {plan.accumulation} micro-batches" if plan.accumulation > 1 else ""
            at = f" at {bucket.image_size}x{bucket.image_size}, {bucket.steps_per_epoch} steps an epoch"
            yield "global batch", f"{bucket.global_batch_size} = {batches}{at if len(plan.buckets) > 1 else ''}"
        yield (
            "steps",
            f"{plan.total_steps} = {config.train.epochs} epochs x {plan.steps_per_epoch}"
            + (f", stopped after {plan.last_step}" if plan.last_step < plan.total_steps else ""),
        )
        yield "peak rate", f"{plan.peak_lr:g}"
    yield "evaluation", f"{plan.eval_steps} steps x {config.train.eval_batch_size} on each device"
    for graph in plan.graphs:
        shape = "x".join(map(str, graph.images)) + ", " if graph.images else ""
        yield "graph", f"{graph.name}: {shape}compiles in {past.compile_time(graph.name)}"
    yield "time", past.run_time()


def _precision_line(precision: Precision) -> str:
    match precision:
        case Fp32Precision():
            return "fp32"
        case Bf16Precision():
            return f"bf16 {precision.level}"
        case Fp16Precision(loss_scale=FixedLossScale(value=value)):
            return f"fp16 {precision.level}, loss scale {value:g}"
        case Fp16Precision(loss_scale=DynamicLossScale(initial=initial)):
            return f"fp16 {precision.level}, dynamic loss scale from {initial:g}"
        case _:
            raise AssertionError(precision)


def _data_line(data: Data, facts: DatasetFacts) -> str:
    line = f"{data.kind}, {facts.num_train} + {facts.num_val} images, {len(facts.class_names)} classes, "
    line += f"{data.image_size}x{data.image_size}"
    return line + (f", {len(facts.skipped)} unreadable images skipped" if facts.skipped else "")
