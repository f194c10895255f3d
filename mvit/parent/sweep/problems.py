"""What is wrong with the request of a sweep: found before anything starts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path

from mvit.config import RunConfig, TrainRun
from mvit.console import shown
from mvit.errors import Problem
from mvit.parent.request.axes import Space, bare
from mvit.parent.sweep.pruning import rungs_of
from mvit.rundir.sweep import is_sweep
from mvit.sweep_config import GridSweep, NoPruner, Objective, Pruner, SearchSweep, SweepConfig


def space_problems(sweep: SweepConfig, space: Space) -> Iterator[Problem]:
    """Axes that do not fit the kind of the sweep."""
    if isinstance(sweep, SearchSweep):
        yield from _search_problems(space, sweep)
    elif sweep.file and space.axes:
        rule = f"has the trials, and {bare(space.axes[0].key)} is an axis"
        yield Problem("sweep.trials", f"@{shown(sweep.file)}", rule, "use one of them")
    for axis in space.axes:
        if isinstance(sweep, GridSweep) and axis.is_interval:
            rule = "is an interval, and a grid has lists"
            yield Problem(bare(axis.key), None, rule, "list its values, or use sweep=search")


def trial_problems(sweep: SweepConfig, configs: Sequence[RunConfig]) -> Iterator[Problem]:
    """Trials that cannot be compared as the sweep is to compare them."""
    yield from _place_problems(configs)
    yield from _objective_problems(sweep.objectives, configs)
    yield from _pruner_problems(sweep.pruner, configs)


def _place_problems(configs: Sequence[RunConfig]) -> Iterator[Problem]:
    """Where trials cannot be executed."""
    if any(config.launch.kind == "slurm" for config in configs):
        if any(config.launch != configs[0].launch for config in configs):
            yield Problem("launch", None, "differs between the trials", "give each of its keys one value")
    elif any(config.topology.nodes > 1 and config.topology.hosts is None for config in configs):
        rule = "is for machines that a person starts by hand, for each trial anew"
        yield Problem("topology.nodes", None, rule, "name them in topology.hosts, or sweep on one machine")


def _search_problems(space: Space, settings: SearchSweep) -> Iterator[Problem]:
    """Why a search cannot be made."""
    if not space.axes:
        remedy = "give some, such as optimizer.lr=tag(log,interval(1e-4,1e-2))"
        yield Problem("sweep", "search", "has no axes", remedy)
    for folder in settings.start_from:
        if not is_sweep(Path(folder)):
            rule = "is not the folder of a sweep"
            yield Problem("sweep.start_from", shown(Path(folder)), rule, "name one with a ledger.jsonl")
    if settings.sampler == "grid" and (intervals := [axis for axis in space.axes if axis.is_interval]):
        rule = f"takes lists, and {bare(intervals[0].key)} is an interval"
        yield Problem("sweep.sampler", "grid", rule, "list its values, or use another sampler")
    if settings.sampler == "cma_es":
        if find_spec("cmaes") is None:
            yield Problem("sweep.sampler", "cma_es", "needs the package cmaes", "run: pip install cmaes")
        if len(settings.objectives) > 1:
            yield Problem("sweep.sampler", "cma_es", "is for one objective", "use tpe")


def _objective_problems(objectives: Sequence[Objective], configs: Sequence[RunConfig]) -> Iterator[Problem]:
    """Objectives that these runs do not log."""
    if len(set(objectives)) < len(objectives):
        yield Problem("sweep.objectives", list(objectives), "names an objective twice", "name each once")
    trains = [config.task.kind == "train" for config in configs]
    averages = [isinstance(config, TrainRun) and config.train.ema_momentum is not None for config in configs]
    for one in objectives:
        if one.startswith("val/ema") and not all(averages):
            yield Problem("sweep.objectives", one, "is not logged: no average is kept", "set train.ema_momentum")
        elif one.startswith(("train/", "perf/")) and not all(trains):
            yield Problem("sweep.objectives", one, "is not logged by an evaluation", "use val/acc1")


def _pruner_problems(pruner: Pruner, configs: Sequence[RunConfig]) -> Iterator[Problem]:
    """Why these trials cannot be pruned."""
    if isinstance(pruner, NoPruner):
        return
    trained = [config for config in configs if isinstance(config, TrainRun)]
    if len(trained) < len(configs):
        yield Problem("sweep.pruner", pruner.kind, "is for training: an evaluation has no epochs", "use none")
        return
    if any(config.train.max_steps for config in trained):
        rule = "cannot prune runs that end after train.max_steps"
        yield Problem("sweep.pruner", pruner.kind, rule, "use train.epochs, or sweep/pruner=none")
        return
    for key in ("epochs", "eval_every_epochs"):
        if len({getattr(config.train, key) for config in trained}) > 1:
            rule = f"compares trials after as many epochs, and train.{key} differs between them"
            yield Problem("sweep.pruner", pruner.kind, rule, "give it one value, or use sweep/pruner=none")
            return
    train = trained[0].train
    rungs = list(rungs_of(pruner, epochs=train.epochs))
    if not rungs:
        rule = f"is not before the last of {train.epochs} epochs"
        yield Problem("sweep.pruner.first_rung", pruner.first_rung, rule, "lower it, or raise train.epochs")
    elif unseen := [epoch for epoch in rungs if epoch % train.eval_every_epochs]:
        rule = f"compares trials after epoch {unseen[0]}, which is not evaluated"
        yield Problem("sweep.pruner", pruner.kind, rule, "use train.eval_every_epochs=1, or a multiple of it")
