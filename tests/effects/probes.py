"""Probes: what production code makes of a run before any process starts; none of them loads MindSpore or MLflow.

A probe returns what can be compared, and is asked only about the sections that it reads.
"""

import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest

from mvit.config import Data, EvaluateRun, RunConfig, TrainRun
from mvit.data import dataset
from mvit.data.survey import Survey
from mvit.errors import ConfigError
from mvit.models.kernels.build import Support
from mvit.models.spec import groups, parameter_shapes
from mvit.parent import execute, launch
from mvit.parent.command import make_command
from mvit.parent.freeze import Surveys
from mvit.parent.graphs import store_of
from mvit.parent.host import Host
from mvit.parent.nodes.remote_shell import ssh_command
from mvit.parent.plan import make_plan
from mvit.parent.report.row import result_row
from mvit.parent.request.launch_rules import data_rules
from mvit.parent.request.rules import judge
from mvit.parent.slot import Slot
from mvit.parent.slurm.exclusion import excluded
from mvit.parent.slurm.script import job_script
from mvit.parent.stop_request import StopRequest
from mvit.parent.tracking.live import tracker_of
from mvit.parent.watchdog import Watchdog
from mvit.places import PROJECT
from mvit.plan import LaunchPlan
from mvit.rundir.ending import Failure, Outcome
from mvit.rundir.faults import Fault, record_fault
from mvit.rundir.frozen import Run
from mvit.rundir.paths import RunDir
from mvit.rundir.result import EvaluateResult, TrainResult
from mvit.rundir.status import Stage, WorkerStatus
from mvit.schedule import learning_rate
from mvit.worker.input import mix, sampler, transforms
from tests.effects.material import noise

HOST = Host(
    python="/usr/bin/python",
    path="/usr/bin",
    pythonpath="",
    glibc_tunables="",
    cpu_count=8,
    ascend_cards=8,
    kernels=Support("avx2"),
)
VIEWS = 12
INFERENCE = (Stage.JOIN, Stage.DATA, Stage.BUILD, Stage.COMPILE, Stage.EVALUATE)
TRAINING = (Stage.JOIN, Stage.DATA, Stage.BUILD, Stage.COMPILE, Stage.STEP, Stage.EVALUATE)
STAGES = {
    "train": TRAINING,
    "evaluate": INFERENCE,
    "predict": INFERENCE,
    "export": INFERENCE,
    "benchmark": TRAINING,
    "profile": TRAINING,
}
"""Where the workers of a task may be."""


@dataclass(frozen=True)
class Subject:
    """A run that is probed."""

    raw: dict[str, Any]
    config: RunConfig
    room: Path
    surveys: dict[Data, Survey]
    """By data, so that each is surveyed once."""

    @cached_property
    def survey(self) -> Survey:
        data = self.config.data
        if data not in self.surveys:
            self.surveys[data] = dataset.survey(data)
        return self.surveys[data]

    @cached_property
    def plan(self) -> LaunchPlan:
        return make_plan(self.config, host=HOST, facts=self.survey.facts)

    @property
    def run(self) -> Run:
        return Run(RunDir(self.room / "run"), self.config, self.plan)


def _plan(subject: Subject) -> str:
    """What is frozen beside the configuration."""
    return subject.plan.model_dump_json()


def _command(subject: Subject) -> object:
    graphs = store_of(subject.run.config.topology)
    command = make_command(subject.run, host=HOST, slot=Slot(), port=20000, attempt=1, graphs=graphs)
    return command.argv, command.env


def _launch(subject: Subject) -> object:
    """Which folder is made, and whether it is executed."""
    followed: list[Run] = []

    def follow(run: Run, *, slot: Slot) -> Outcome:
        followed.append(run)
        return Outcome("FINISHED", 0, None)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(launch, "follow", follow)
        patch.setattr(launch, "announce", lambda _: None)
        patch.setattr(launch, "show_plan", lambda *_, **__: None)
        runs = {path.parent for path in subject.room.glob("**/run.json")}
        launch.launch(subject.raw, argv=["launch.py"])
        made = {path.parent for path in subject.room.glob("**/run.json")} - runs
    return sorted(str(folder.parent) for folder in made), len(followed)


def _remote_shells(subject: Subject) -> object:
    """What is started on other machines."""
    hosts = subject.config.topology.hosts or ()
    return [ssh_command(RunDir(subject.room), host, rank=rank) for rank, host in enumerate(hosts)][1:]


def _job(subject: Subject) -> object:
    """The script that is submitted, after a machine has failed twice."""
    launch = subject.config.launch
    if launch.kind != "slurm":
        return None
    folder = RunDir(subject.room)
    folder.faults.unlink(missing_ok=True)
    for attempt in (1, 2):
        record_fault(folder, Fault(time=0.0, attempt=attempt, kind="hang", machine="n1"))
    return job_script(subject.run, launch, host=HOST, without=excluded([folder], launch))


def _attempts(subject: Subject) -> int:
    """How often a run is started that fails each time for a reason that may not come back."""
    return len(_failing(subject)[0])


def _printed(subject: Subject) -> list[str]:
    """What a person is told of such a run."""
    return _failing(subject)[1]


def _failing(subject: Subject) -> tuple[list[Failure], list[str]]:
    failures: list[Failure] = []
    told: list[str] = []

    class Listener(execute.Silent):
        def say(self, line: str) -> None:
            told.append(line)

    def fail(*_: object, **__: object) -> Outcome:
        failures.append(Failure("killed", 0, "step", "killed"))
        return Outcome("FAILED", 1, failures[-1])

    subject.run.folder.path.mkdir(parents=True, exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(execute.supervise, "run", fail)
        patch.setattr(execute, "tracker_of", lambda _: None)
        execute.execute(subject.run, slot=Slot(), stop=StopRequest(), observer=Listener())
    return failures, told


def _verdicts(subject: Subject) -> object:
    """What the watchdog says of a worker that stays in a stage."""
    verdicts: list[str] = []
    for stage in STAGES[subject.config.task.kind]:
        watchdog = Watchdog(subject.config.limits, workers=1, now=0.0)
        worker = WorkerStatus(
            rank=0,
            host=socket.gethostname(),
            pid=os.getpid(),
            started=0,
            stage=stage,
            step=1,
            marks=1,
            error=None,
            time=1.0,
        )
        watchdog.look([worker], now=1.0)
        failure = watchdog.look([worker], now=1e9)
        verdicts.append(failure.message if failure else "")
    return verdicts


def _tracker(subject: Subject) -> object:
    """The store and the experiment that a run is mirrored to."""
    tracker = tracker_of(subject.run)
    return tracker and (tracker._uri, tracker._experiment)


def _schedule(subject: Subject) -> object:
    """The rate of every step, its factor and decay of every parameter."""
    config, plan = subject.config, subject.plan
    if not isinstance(config, TrainRun):
        return None
    steps = range(plan.total_steps)
    names = list(parameter_shapes(config.model, num_classes=plan.num_classes))
    at = {"peak": plan.peak_lr, "steps_per_epoch": plan.steps_per_epoch, "total_steps": plan.total_steps}
    rates = [learning_rate(config.schedule, step=step, **at) for step in steps]
    return rates, groups(names, config.optimizer, model=config.model)


def _feed(subject: Subject) -> object:
    """Which images an epoch has in which order, and how its batches are mixed."""
    config = subject.config
    if not isinstance(config, TrainRun):
        return None
    order = sampler.epoch_order(
        subject.plan.dataset.num_train, seed=config.seed, epoch=1, repeats=config.augment.repeats
    )
    draws = [mix.draw(config.augment.mix, seed=config.seed, step=step, part=0, image_size=32) for step in range(VIEWS)]
    return order.indices.tolist(), order.views.tolist(), [draw.tolist() for draw in draws]


def _views(subject: Subject) -> object:
    """Training views of a picture, as far as Pillow draws them."""
    config, picture = subject.config, noise((48, 40))
    if not isinstance(config, TrainRun):
        return None
    augment = config.augment.model_copy(update={"color_jitter": None})  # MindSpore's operators
    return [
        transforms.augment(
            picture,
            augment,
            size=config.data.image_size,
            mean=config.data.mean,
            interpolation=config.data.interpolation,
            antialias=True,
            random=sampler.view_generator(1, epoch=1, index=index, view=0),
        ).tobytes()
        for index in range(VIEWS)
    ]


def _unreadable(subject: Subject) -> object:
    """What becomes of images that cannot be decoded."""
    try:
        return (
            Surveys()
            .readable(
                subject.config.data,
                training=isinstance(subject.config, TrainRun),
                cache=PROJECT / subject.config.runs_dir / ".readable",
            )
            .facts
        )
    except ConfigError as error:
        return [str(problem) for problem in error.problems]


def _row(subject: Subject) -> object:
    """The label of a result in tables, which is all that model.name is for."""
    config = subject.config
    metrics: dict[str, Any] = {"metrics": {}, "graphs": {}}
    result = (
        EvaluateResult(task="evaluate", correct1=0, correct5=0, count=1, weights="raw", **metrics)
        if isinstance(config, EvaluateRun)
        else TrainResult(task="train", steps=1, compiled=1, **metrics)
    )
    return result_row(subject.run, result)["model name"]


def _demands(subject: Subject) -> object:
    """What is demanded of the data: model.num_classes can only be right, and refuses data of other classes."""
    return [str(problem) for problem in judge(data_rules(subject.survey.facts), dict(subject.config))]


@dataclass(frozen=True)
class Probe:
    name: str
    of: Callable[[Subject], object]
    sections: frozenset[str] | None = None
    """The sections that it reads; None for all."""


def _probe(name: str, of: Callable[[Subject], object], *sections: str) -> Probe:
    return Probe(name, of, frozenset(sections) or None)


PROBES = (
    _probe("plan", _plan),
    _probe("command", _command),
    _probe("remote shells", _remote_shells, "topology"),
    _probe("job", _job, "launch"),
    _probe("launch", _launch, "name", "runs_dir", "dry_run", "freeze"),
    _probe("what is printed", _printed, "verbose"),
    _probe("watchdog", _verdicts, "limits"),
    _probe("tracker", _tracker, "tracking"),
    _probe("attempts", _attempts, "train"),
    _probe("schedule", _schedule, "schedule", "optimizer"),
    _probe("feed", _feed, "augment", "seed"),
    _probe("views", _views, "augment"),
    _probe("unreadable images", _unreadable, "data"),
    _probe("result row", _row, "model"),
    _probe("demands on the data", _demands, "model"),
)
"""The first that sees a difference proves the option."""
