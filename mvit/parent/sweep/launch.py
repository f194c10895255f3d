"""The launch of a sweep: read what was typed, plan every trial, freeze them, run them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from mvit import console
from mvit.console import mvit_command, shown
from mvit.errors import ConfigError, Problem
from mvit.parent import orphans
from mvit.parent.freeze import Planned, Surveys, plan_again, runs_of
from mvit.parent.host import CHECKOUT, Host, this_host
from mvit.parent.launch import show_plan
from mvit.parent.report.estimate import past_runs
from mvit.parent.report.numbers import duration
from mvit.parent.report.table import labels_of
from mvit.parent.request.axes import Axis, Space, bare, read_space, rows_of
from mvit.parent.request.compose import Composer
from mvit.parent.slot import Slot, slot_from_environment
from mvit.parent.sweep.problems import space_problems, trial_problems
from mvit.parent.sweep.slots import Slots, slots_of
from mvit.parent.sweep.source import Source, corners
from mvit.parent.sweep.sweep import run_sweep
from mvit.parent.sweep.trials import Freezer, plan_trials, tell_of_repeats, without_repeats
from mvit.rundir.ledger import Asked, Ledger
from mvit.rundir.paths import new_run_id, writable
from mvit.sweep_config import SearchSweep, SweepConfig


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


def read_request(overrides: Sequence[str], composer: Composer) -> Request:
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


def trials_of_request(request: Request) -> list[list[str]]:
    """The overrides of each trial of a grid."""
    sweep, space = request.sweep, request.space
    if sweep.kind == "grid" and sweep.trials:
        return rows_of(sweep.trials, fixed=space.fixed)
    return space.combinations()


def launch_sweep(overrides: Sequence[str], *, composer: Composer, argv: Sequence[str]) -> int:
    """Plan all trials, freeze them, run them; returns the exit code, raises `ConfigError` for wrong ones."""
    host, base = this_host(), slot_from_environment()
    request = read_request(overrides, composer)
    sweep = request.sweep
    is_search = isinstance(sweep, SearchSweep)
    # Of a search, runs at the bounds of its space stand for those that will be drawn.
    trials = corners(request.space, composer) if is_search else trials_of_request(request)
    surveys = Surveys()
    planned = plan_trials(trials, composer=composer, host=host, surveys=surveys)
    configs = [trial.config for trial in planned]
    for key in ("dry_run", "freeze"):
        if len({getattr(config, key) for config in configs}) > 1:
            raise ConfigError(Problem(key, None, "differs between the trials", "give it one value"))
    if problems := list(trial_problems(sweep, configs)):
        raise ConfigError(*problems)
    slots = slots_of(sweep, configs, host)
    config = configs[0]
    folder = runs_of(config) / new_run_id()
    count = sweep.max_trials if isinstance(sweep, SearchSweep) else len(trials)
    freezer = Freezer(folder, slots, host=host, base=base, argv=argv, width=len(str(count - 1)))
    fitted = [freezer.fitted(trial) for trial in planned]
    left = list(zip(fitted, trials, strict=True)) if sweep.again or is_search else without_repeats(fitted, trials)
    if config.dry_run or sweep.preview:
        _show(left, request, slots=slots, host=host, base=base, is_brief=sweep.preview)
        return 0
    orphans.close(CHECKOUT / config.runs_dir)
    tell_of_repeats(len(trials) - len(left))
    asked = Asked(argv=tuple(argv), overrides=request.overrides, sweep=sweep, slots=slots.texts())
    with writable(folder):
        folder.mkdir(parents=True, exist_ok=False)
    try:
        if is_search:
            with writable(folder):
                Ledger(folder).append(asked)
            frozen = []
        else:
            frozen = freezer.freeze_all(left, labels_of([typed for _, typed in left]), after=[asked])
    except BaseException:
        folder.rmdir()
        raise
    console.say(f"mvit: {count if is_search else len(frozen)} trials in {shown(folder)}")
    if config.freeze:
        console.say(f"mvit: frozen; execute them with: {mvit_command('resume', folder)}")
        print(shown(folder))
        return 0
    source = Source(request.space, sweep, composer=composer, freezer=freezer) if is_search else None
    return run_sweep(folder, frozen, asked=asked, slots=slots, example=config, source=source)


def _show(
    trials: Sequence[tuple[Planned, Sequence[str]]],
    request: Request,
    *,
    slots: Slots,
    host: Host,
    base: Slot,
    is_brief: bool,
) -> None:
    """The trials, and how long they will take, or the plan of each of them."""
    sweep = request.sweep
    is_search = isinstance(sweep, SearchSweep)
    labels = labels_of([overrides for _, overrides in trials])
    seconds: list[float | None] = []
    for number, ((planned, overrides), label) in enumerate(zip(trials, labels, strict=True), 1):
        config, plan = planned.config, planned.plan
        past = past_runs(config, plan, CHECKOUT / config.runs_dir)
        seconds.append(past.run_time_s())
        if is_brief:
            console.say(f"  {label}{'' if seconds[-1] is None else f', about {duration(seconds[-1])}'}")
        else:
            console.say(f"mvit: trial {number} of {len(trials)}: {' '.join(overrides)}")
            show_plan(planned, host=host, slot=base)
    count = sweep.max_trials if isinstance(sweep, SearchSweep) else len(trials)
    if is_search and is_brief:
        console.say("  ... and what is drawn between them")
    measured = [one for one in seconds if one is not None]
    time = "in an unknown time: no finished run of them"
    if measured:
        time = f"in about {duration(sum(measured) / len(measured) * count / len(slots.shares))}"
    pruned = "" if sweep.pruner.kind == "none" else ", without what is pruned"
    for number in sorted({1, host.cpu_count} - {len(slots.shares)}) if measured else ():
        if other := _other_time(trials, count, number, host=host):
            console.say(f"mvit: with sweep.slots={number} it would take about {duration(other)}")
    kind = "at most " if is_search else ""
    shares = f"{len(slots.shares)} slots" if len(slots.shares) > 1 else "one slot"
    console.say(f"mvit: {kind}{count} trials in {shares}, {time}{pruned}")


def _other_time(trials: Sequence[tuple[Planned, Sequence[str]]], count: int, slots: int, *, host: Host) -> float | None:
    """Seconds that so many trials would take in other slots of a CPU; None where no past run of one tells."""
    seconds: list[float] = []
    for planned, _ in trials:
        config = planned.config
        if config.topology.kind != "cpu" or config.topology.workers > 1:
            return None
        share = replace(host, cpu_count=host.cpu_count // slots)
        plan = plan_again(planned, host=share, surveys=Surveys()).plan
        found = past_runs(config, plan, CHECKOUT / config.runs_dir).run_time_s()
        seconds += [] if found is None else [found]
    return sum(seconds) / len(seconds) * count / slots if seconds else None


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
