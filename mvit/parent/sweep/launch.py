"""The launch of a sweep: read what was typed, plan every trial, freeze them, run them."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace

from mvit import console
from mvit.config import RunConfig, SlurmLaunch
from mvit.console import mvit_command, shown
from mvit.errors import ConfigError, Problem
from mvit.parent import orphans
from mvit.parent.freeze import Planned, Surveys, plan_again, runs_of
from mvit.parent.host import this_host
from mvit.parent.launch import show_plan, show_script, tell_nothing_started
from mvit.parent.report.estimate import past_runs
from mvit.parent.report.numbers import duration
from mvit.parent.report.table import labels_of
from mvit.parent.request.axes import Axis, Space, bare, read_space, rows_of
from mvit.parent.request.compose import Composer
from mvit.parent.slot import slot_from_environment
from mvit.parent.slurm.script import array_script
from mvit.parent.sweep.array import may_leave, send_array
from mvit.parent.sweep.problems import space_problems, trial_problems
from mvit.parent.sweep.slots import slots_of
from mvit.parent.sweep.source import Source, corners
from mvit.parent.sweep.sweep import run_sweep
from mvit.parent.sweep.trials import Freezer, plan_trials, report_repeats, without_repeats
from mvit.places import PROJECT
from mvit.rundir.frozen import Run
from mvit.rundir.ledger import SweepRequest
from mvit.rundir.paths import RunDir, new_run_id, writable
from mvit.sweep_config import GridSweep, SearchSweep, SweepConfig

MOST_TRIALS = 10_000
"""Of a grid: each is planned before the first one starts, and has a folder."""
MANY_TRIALS = 100
"""Planning so many takes seconds, which is said."""


@dataclass(frozen=True)
class Request:
    """What was typed for a sweep."""

    sweep: SweepConfig
    space: Space
    """Without the settings of the sweep itself."""

    @property
    def overrides(self) -> tuple[str, ...]:
        """As it could be typed again, but for those settings."""
        return (*self.space.fixed, *(typed(axis) for axis in self.space.axes))


def parse_request(overrides: Sequence[str], composer: Composer) -> Request:
    """Sort what was typed; raises `ConfigError`."""
    space = read_space(overrides, composer)
    experiments = next((axis for axis in space.axes if bare(axis.key) == "experiment"), None)
    chosen = [[experiments.override(value)] for value in experiments.values] if experiments else [list[str]()]
    sweep, *others = [composer.sweep([*space.fixed, *one]) for one in chosen]
    if any(other != sweep for other in others):
        raise ConfigError(Problem("sweep", None, "differs between the experiments", "give each of its keys one value"))
    fixed = tuple(text for text in space.fixed if not is_setting(text))
    request = Request(sweep, Space(fixed, space.axes))
    if problems := list(space_problems(sweep, request.space)):
        raise ConfigError(*problems)
    return request


def trials_of_request(request: Request, composer: Composer) -> list[list[str]]:
    """The overrides of each trial of a grid; raises `ConfigError` for one that is a sweep itself."""
    sweep, space = request.sweep, request.space
    file = sweep.file if isinstance(sweep, GridSweep) else None
    if not file and space.size > MOST_TRIALS:
        remedy = "list fewer values, or draw some of them: sweep=search sweep.sampler=random"
        raise ConfigError(Problem("sweep", None, f"has {space.size} trials, more than {MOST_TRIALS}", remedy))
    trials = rows_of(file, fixed=space.fixed) if file else space.combinations()
    chosen = {text for trial in trials for text in trial if bare(text).startswith("experiment=")} - {*space.fixed}
    for text in sorted(chosen):
        if composer.is_sweep([text]):
            raise ConfigError(Problem("experiment", text.partition("=")[2], "is a sweep of its own", "run it alone"))
    return trials


@dataclass(frozen=True)
class _Prepared:
    """A sweep whose trials are planned and fit the machine; nothing is written yet."""

    request: Request
    config: RunConfig
    """Of one of the trials."""
    trials: Sequence[tuple[Planned, Sequence[str]]]
    """Each with its overrides. Of a search, runs at the bounds of its space stand for those that will be drawn."""
    repeats: int
    """Trials that are left out: others have their configuration."""
    freezer: Freezer

    @property
    def count(self) -> int:
        """How many trials there will be, at most."""
        sweep = self.request.sweep
        return sweep.max_trials if isinstance(sweep, SearchSweep) else len(self.trials)


def launch_sweep(overrides: Sequence[str], *, composer: Composer, argv: Sequence[str]) -> int:
    """Plan all trials, freeze them, run them; returns the exit code, raises `ConfigError` for wrong ones."""
    prepared = _prepare(parse_request(overrides, composer), composer=composer, argv=argv)
    request, config, freezer = prepared.request, prepared.config, prepared.freezer
    report_repeats(prepared.repeats)
    is_array = isinstance(config.launch, SlurmLaunch) and may_leave(request.sweep)
    if is_array:
        _array_script(prepared)  # which refuses trials of several sizes
    if config.dry_run or request.sweep.preview:
        _show(prepared, is_brief=request.sweep.preview)
        tell_nothing_started("dry_run=true" if config.dry_run else "sweep.preview=true")
        return 0
    orphans.close(PROJECT / config.runs_dir)
    requested = SweepRequest(
        argv=tuple(argv),
        overrides=request.overrides,
        sweep=request.sweep,
        config_dirs=tuple(str(folder.absolute()) for folder in composer.config_dirs),
        slots=freezer.slots.texts(),
    )
    is_search = isinstance(request.sweep, SearchSweep)
    with writable(freezer.folder):
        freezer.folder.mkdir(parents=True, exist_ok=False)
    try:
        trials: Sequence[tuple[Planned, Sequence[str]]] = () if is_search else prepared.trials
        frozen = freezer.freeze_all(trials, labels_of([typed for _, typed in trials]), after=[requested])
    except BaseException:
        shutil.rmtree(freezer.folder, ignore_errors=True)
        raise
    console.say(f"mvit: {'at most ' if is_search else ''}{prepared.count} trials in {shown(freezer.folder)}")
    if config.freeze:
        console.say(f"mvit: frozen; execute them with: {mvit_command('resume', freezer.folder)}")
        print(shown(freezer.folder))
        return 0
    if is_array:
        return send_array(freezer.folder, frozen, requested=requested, example=config)
    source = None
    if isinstance(request.sweep, SearchSweep):
        source = Source(request.space, request.sweep, composer=composer, freezer=freezer)
    return run_sweep(freezer.folder, frozen, requested=requested, slots=freezer.slots, example=config, source=source)


def _prepare(request: Request, *, composer: Composer, argv: Sequence[str]) -> _Prepared:
    """Plan the trials for the slots that they will have; raises `ConfigError` with all that is wrong with them."""
    host, base, sweep = this_host(), slot_from_environment(), request.sweep
    is_search = isinstance(sweep, SearchSweep)
    typed = corners(request.space, composer) if is_search else trials_of_request(request, composer)
    if len(typed) > MANY_TRIALS:
        console.say(f"mvit: planning {len(typed)} trials ...")
    surveys = Surveys()
    planned = plan_trials(typed, composer=composer, host=host, surveys=surveys)
    configs = [trial.config for trial in planned]
    for key in ("dry_run", "freeze"):
        if len({getattr(config, key) for config in configs}) > 1:
            raise ConfigError(Problem(key, None, "differs between the trials", "give it one value"))
    if problems := list(trial_problems(sweep, configs)):
        raise ConfigError(*problems)
    slots = slots_of(sweep, configs, host)
    count = sweep.max_trials if isinstance(sweep, SearchSweep) else len(typed)
    folder = runs_of(configs[0])
    if len({config.name for config in configs}) > 1:  # it is not called after one of them
        folder = folder.with_name(f"{configs[0].data.kind}-sweep")
    folder /= new_run_id()
    freezer = Freezer(folder, slots, host=host, base=base, argv=argv, width=len(str(count - 1)), surveys=surveys)
    fitted = [freezer.fitted(trial) for trial in planned]
    trials = list(zip(fitted, typed, strict=True)) if sweep.again or is_search else without_repeats(fitted, typed)
    return _Prepared(request, configs[0], trials, len(typed) - len(trials), freezer)


def _show(prepared: _Prepared, *, is_brief: bool) -> None:
    """The trials, and how long they will take, or the plan of each of them."""
    sweep, slots, trials = prepared.request.sweep, prepared.freezer.slots, prepared.trials
    seconds: list[float] = []
    for number, ((planned, overrides), label) in enumerate(
        zip(trials, labels_of([overrides for _, overrides in trials]), strict=True), 1
    ):
        if not is_brief:
            console.say(f"mvit: trial {number} of {len(trials)}: {' '.join(overrides)}")
            show_plan(planned, host=prepared.freezer.host, slot=prepared.freezer.base)
        known = past_runs(planned.config, planned.plan, PROJECT / planned.config.runs_dir).run_time_s()
        seconds += [] if known is None else [known]
        if is_brief:
            console.say(f"  {label}{'' if known is None else f', about {duration(known)}'}")
    if isinstance(prepared.config.launch, SlurmLaunch) and may_leave(sweep) and not is_brief:
        show_script(_array_script(prepared))
    is_search = isinstance(sweep, SearchSweep)
    if is_search and is_brief:
        console.say("  ... and what is drawn between them")
    time = "in an unknown time: no finished run of them"
    if seconds:
        time = f"in about {duration(sum(seconds) / len(seconds) * prepared.count / len(slots.shares))}"
    pruned = "" if sweep.pruner.kind == "none" else ", without what is pruned"
    shares = f"{len(slots.shares)} slots" if len(slots.shares) > 1 else "one slot"
    console.say(f"mvit: {'at most ' if is_search else ''}{prepared.count} trials in {shares}, {time}{pruned}")
    is_here = slots.device != "jobs"
    for number in sorted({1, prepared.freezer.host.cpu_count} - {len(slots.shares)}) if seconds and is_here else ():
        if other := _other_time(prepared, number):
            console.say(f"mvit: with sweep.slots={number} it would take about {duration(other)}")


def _array_script(prepared: _Prepared) -> str:
    """Of folders that are not made; raises `ConfigError` where the trials are not of one size."""
    folder, freezer = prepared.freezer.folder, prepared.freezer
    runs = {
        number: Run(RunDir(folder / str(number)), planned.config, planned.plan)
        for number, (planned, _) in enumerate(prepared.trials)
    }
    return array_script(RunDir(folder), runs, host=freezer.host, at_once=len(freezer.slots.shares))


def _other_time(prepared: _Prepared, slots: int) -> float | None:
    """Seconds that the trials would take in other slots of a CPU; None where no past run of one tells."""
    host = prepared.freezer.host
    seconds: list[float] = []
    for planned, _ in prepared.trials:
        config = planned.config
        if config.topology.kind != "cpu" or config.topology.workers > 1:
            return None
        share = replace(host, cpu_count=host.cpu_count // slots)
        plan = plan_again(planned, host=share, surveys=prepared.freezer.surveys).plan
        found = past_runs(config, plan, PROJECT / config.runs_dir).run_time_s()
        seconds += [] if found is None else [found]
    return sum(seconds) / len(seconds) * prepared.count / slots if seconds else None


def is_setting(override: str) -> bool:
    """Whether an override is of the sweep, not of its trials."""
    return bare(override).startswith(("sweep.", "sweep=", "sweep/"))


def typed(axis: Axis) -> str:
    """An axis as it could be typed again."""
    if axis.values:
        return f"{axis.key}=choice({','.join(axis.values)})"
    low, high = (str(int(one)) if axis.is_int else repr(one) for one in (axis.low, axis.high))
    inner = f"int(interval({low},{high}))" if axis.is_int else f"interval({low},{high})"
    return f"{axis.key}=tag(log,{inner})" if axis.is_log else f"{axis.key}={inner}"
