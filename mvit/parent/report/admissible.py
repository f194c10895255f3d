"""Whether a result may be believed: the rules of experiments/rules.json, each with the reason why it is broken."""

from __future__ import annotations

import re
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, cast

from mvit.config import Frozen, RunConfig, TrainRun, WeightsInit
from mvit.errors import ConfigError
from mvit.files import file_digest, read_json, read_mapping
from mvit.parent.report.accuracy import accuracies
from mvit.parent.report.published import read_published
from mvit.parent.report.record import Record, Value, flat
from mvit.parent.request.check import parse
from mvit.parent.request.compose import Composer
from mvit.places import CONSTRAINTS, EXPERIMENTS
from mvit.plan import WARM_STEPS
from mvit.rundir.ending import read_ending
from mvit.rundir.frozen import NOT_THE_RUN
from mvit.rundir.ledger import TrialPaused, read_events
from mvit.rundir.result import EvaluateResult, TrainResult, read_result
from mvit.rundir.sweep import is_sweep, read_trials

FILE = EXPERIMENTS / "rules.json"
CODE = (".py", ".yaml", ".cc", ".h")
"""What the names of files end with that a result may depend on."""
MOST_NAMED = 3
"""Differences that a reason names."""
ELSEWHERE = (*NOT_THE_RUN, "seed", "topology", "data.root", "data.workers")
"""Keys of an experiment that may be another where its results are repeated."""

Rule = Literal[
    "finished", "every_image_once", "code", "versions", "recipe", "data", "journal", "from_scratch", "plausible",
    "compiled_apart", "uninterrupted", "steady", "load", "seeds", "target",
]  # fmt: skip


class Rules(Frozen):
    """experiments/rules.json."""

    rules: Mapping[Rule, str]
    of_speed: list[Rule]
    """Rules that say whether a speed may be believed; the others say it of the whole result."""
    steady_steps: int
    other_load_pct: float
    """Processor time that others may use while a speed is measured, in percent of a core."""
    p: float
    """Of the one-sided t-test for a target."""
    plausible_deviations: float
    """Standard deviations that a result may be better than the reference."""
    fingerprints: Mapping[str, str]
    """Of the data of references, by their kind."""


@cache
def read_rules(file: Path = FILE) -> Rules:
    """Raises `ValueError` for a file that does not hold such rules."""
    return Rules.model_validate_json(file.read_bytes())


@dataclass(frozen=True)
class Finding:
    """A rule, and why it is broken; nothing if it holds."""

    rule: Rule
    reason: str = ""

    @property
    def is_of_speed(self) -> bool:
        return self.rule in read_rules().of_speed


def findings(record: Record) -> list[Finding]:
    """Every rule that applies to a single run."""
    every: dict[Rule, Callable[[Record], str | None]] = {
        "finished": _finished,
        "every_image_once": _every_image_once,
        "code": _code,
        "versions": _versions,
        "recipe": _recipe,
        "data": _data,
        "journal": _journal,
        "from_scratch": _from_scratch,
        "plausible": _plausible,
        "compiled_apart": _compiled_apart,
        "uninterrupted": _uninterrupted,
        "steady": _steady,
        "load": _load,
    }
    if record.run is None or record.row is None:
        return [Finding("finished", record.problem or f"it is {record.status}, without a result")]
    has_speed = "perf/images_per_s" in record.metrics
    every_one = (Finding(rule, reason_of(record) or "") for rule, reason_of in every.items())
    return [finding for finding in every_one if has_speed or not finding.is_of_speed]


def claims(records: Sequence[Record], *, seeds: int | None, target: float | None) -> list[Finding]:
    """The rules for a claim over several runs: of `seeds` seeds, that their mean accuracy meets `target` percent."""
    reasons: dict[Rule, str | None] = {}
    if seeds is not None:
        reasons["seeds"] = _seeds(records, seeds)
    if target is not None:
        reasons["target"] = _target(records, target)
    jobs = {record.job for record in records if record.run is not None}
    if reasons and len(jobs) > 1:  # one cause, which is told once
        reasons = {next(iter(reasons)): f"the runs have {len(jobs)} different configurations"}
    return [Finding(rule, reason or "") for rule, reason in reasons.items()]


Verdict = Literal["yes", "not the speed", "no"]


def verdict(record: Record) -> Verdict:
    """Whether the result may be believed, and its speed."""
    broken = [finding for finding in findings(record) if finding.reason]
    if not broken:
        return "yes"
    return "not the speed" if all(finding.is_of_speed for finding in broken) else "no"


def _finished(record: Record) -> str | None:
    return None if record.status == "FINISHED" else f"it is {record.status}"


def _every_image_once(record: Record) -> str | None:
    assert record.run
    images = record.run.plan.dataset.num_val
    match read_result(record.folder):
        case EvaluateResult(count=count):
            pass
        case _:
            try:
                counts = cast("list[list[int]]", read_json(record.folder.confusion)["counts"])
                count = sum(map(sum, counts))
            except (OSError, ValueError, KeyError, TypeError):
                return "confusion.json, which counts them, is missing or torn"
    return None if count == images else f"{count} images were counted, and the data has {images}"


def _code(record: Record) -> str | None:
    made_of = read_mapping(record.folder.provenance)
    if made_of is None:
        return "provenance.json is missing or torn"
    if not made_of.get("commit"):
        return f"no commit is known: {made_of.get('git_problem') or 'the repository has none'}"
    if made_of.get("num_changed") and (made_of.get("patch_cut") or not record.folder.patch.is_file()):
        return "there were changes, and their patch is not kept"
    untracked = cast("list[str]", made_of.get("untracked") or [])
    code = [name for name in untracked if name.endswith(CODE)]
    return f"files that git does not know: {_named(code)}" if code else None


def _versions(record: Record) -> str | None:
    made_of = read_mapping(record.folder.provenance) or {}
    used = cast("dict[str, str | None]", made_of.get("versions") or {})
    wanted = _constraints()
    wrong = [f"{name} {used[name]}" for name in used if name in wanted and used[name] not in wanted[name]]
    return f"{_named(wrong)} instead of {_named([' or '.join(wanted[w.split()[0]]) for w in wrong])}" if wrong else None


@cache
def _constraints() -> dict[str, tuple[str, ...]]:
    """The versions of each package; several where they depend on Python's."""
    found: dict[str, list[str]] = {}
    for line in CONSTRAINTS.read_text(encoding="utf-8").splitlines():
        if match := re.match(r"([\w.-]+)==([^\s;]+)", line):
            found.setdefault(match[1], []).append(match[2])
    return {name: tuple(versions) for name, versions in found.items()}


def _recipe(record: Record) -> str | None:
    assert record.run
    config = record.run.config
    try:
        named = _experiment(config.name, _places(config))
    except ConfigError as error:
        return f"experiments/{config.name}.yaml cannot be composed: {error.problems[0]}"
    if named is None:
        return None  # it claims to be none
    varied = {text.partition("=")[0].lstrip("+") for text in _trial_overrides(record.folder.path)}
    mine = flat(config.model_dump(mode="json"))
    wrong = [
        f"{key}={_said(mine.get(key))} instead of {_said(named.get(key))}"
        for key in dict.fromkeys((*named, *mine))
        if mine.get(key) != named.get(key) and not key.startswith(ELSEWHERE) and not _is_below(key, varied)
    ]
    return _named(wrong) if wrong else None


def _places(config: RunConfig) -> tuple[str, ...]:
    """What an experiment leaves to be said: where data and weights are."""
    root = getattr(config.data, "root", None)
    init = config.init if isinstance(config, TrainRun) else None
    checkpoint = init.checkpoint if isinstance(init, WeightsInit) else None
    return tuple(f"{key}={value}" for key, value in (("data.root", root), ("init.checkpoint", checkpoint)) if value)


@cache
def _experiment(name: str, places: tuple[str, ...]) -> Mapping[str, Value] | None:
    """The configuration of an experiment as it is today; None where there is none of that name."""
    if not (EXPERIMENTS / f"{name}.yaml").is_file():
        return None
    config = parse(Composer().compose([f"experiment={name}", *places]))
    return flat(config.model_dump(mode="json"))


def _trial_overrides(folder: Path) -> Sequence[str]:
    """What its sweep varies, or sets for all trials."""
    if not is_sweep(folder.parent):
        return ()
    return next((trial.overrides for trial in read_trials(folder.parent) if trial.folder == folder.name), ())


def _rungs(folder: Path) -> list[int]:
    """The epochs after which its sweep had a trial wait."""
    if not is_sweep(folder.parent):
        return []
    number = next((trial.trial for trial in read_trials(folder.parent) if trial.folder == folder.name), None)
    events = read_events(folder.parent)
    return [event.epoch for event in events if isinstance(event, TrialPaused) and event.trial == number]


def _is_below(key: str, keys: set[str]) -> bool:
    return any(key == one or key.startswith(f"{one}.") for one in keys)


def _data(record: Record) -> str | None:
    assert record.run
    reference = read_rules().fingerprints.get(record.run.config.data.kind)
    mine = record.run.plan.dataset.fingerprint
    return f"fingerprint {mine[:12]} instead of {reference[:12]}" if reference and mine != reference else None


def _journal(record: Record) -> str | None:
    ending = read_ending(record.folder)
    if ending is None or ending.journal is None:
        return "nothing says how it was when the run ended"
    with suppress(OSError):
        return None if file_digest(record.folder.journal) == ending.journal else "it has changed since the run ended"
    return "it is missing"


def _from_scratch(record: Record) -> str | None:
    """The configuration of a fork does not say what its first steps were."""
    return f"it is a fork of {record.forked_from}" if record.forked_from else None


def _plausible(record: Record) -> str | None:
    """A result that is too good is looked into before it is praised."""
    assert record.run
    accuracy = next(iter(accuracies([record.metrics])), None)
    published = read_published()
    spread = read_rules().plausible_deviations * published.tolerance.acc_points
    references = [one.acc1 for one in published.results if one.recipe == record.run.config.name and one.acc1]
    if accuracy is None or not references or accuracy <= max(references) + spread:
        return None
    return f"{accuracy:.2f} % is {accuracy - max(references):.2f} points above the reference; look for a leak first"


def _compiled_apart(record: Record) -> str | None:
    assert record.run
    result, planned = read_result(record.folder), len(record.run.plan.buckets)
    if not isinstance(result, TrainResult) or result.compiled == planned:
        return None
    return f"{result.compiled} training graphs were compiled, and {planned} planned"


def _uninterrupted(record: Record) -> str | None:
    """A trial that came to a rung, and went on from there, was measured anew since."""
    attempts = len(list(record.folder.logs.glob("attempt-*"))) - len(_rungs(record.folder.path))
    return f"it took {attempts} attempts" if attempts > 1 else None


def _steady(record: Record) -> str | None:
    assert record.run
    result, least = read_result(record.folder), read_rules().steady_steps
    if not isinstance(result, TrainResult):
        return None
    before = max(_rungs(record.folder.path), default=0) * record.run.plan.steps_per_epoch
    steps = result.steps - before - WARM_STEPS * len(record.run.plan.buckets)
    return f"{max(0, steps)} steps, and {least} are asked for" if steps < least else None


def _load(record: Record) -> str | None:
    load, most = record.metrics.get("perf/other_load_pct"), read_rules().other_load_pct
    if load is None:
        return "it was not recorded"
    return f"others used {load / 100:.2f} cores, and {most / 100:.2f} are allowed" if load > most else None


def _seeds(records: Sequence[Record], claimed: int) -> str | None:
    seeds = {record.values.get("seed") for record in records if record.row is not None}
    return f"{len(seeds)} seeds are there, and {claimed} are claimed" if len(seeds) < claimed else None


def _target(records: Sequence[Record], target: float) -> str | None:
    """A one-sided t-test: whether the mean is at least the target, with what is left to chance below p."""
    evaluated = {r.values.get("seed"): r.metrics for r in records if "val/acc1" in r.metrics}
    if (n := len(evaluated)) < 2:
        return "a test needs two seeds at least"
    of_seeds = accuracies(list(evaluated.values()))
    mean, deviation = statistics.fmean(of_seeds), statistics.stdev(of_seeds)
    if deviation == 0.0:
        return None if mean >= target else f"every seed gives {mean:.2f} %"
    from scipy import stats  # pyright: ignore[reportMissingTypeStubs, reportUnknownVariableType]

    t = (mean - target) / (deviation / n**0.5)
    p, most = float(cast(Any, stats).t.sf(t, n - 1)), read_rules().p
    return f"{mean:.2f} % on average of {n}, p = {p:.3f}, and {most:g} is asked for" if p > most else None


def _named(names: Sequence[str]) -> str:
    more = len(names) - MOST_NAMED
    return ", ".join(names[:MOST_NAMED]) + (f" and {more} more" if more > 0 else "")


def _said(value: Value) -> str:
    return "null" if value is None else str(value)


def lines(found: Sequence[Finding]) -> Iterator[str]:
    """What a person reads: each rule with `ok`, or with the reason why it is broken."""
    rules = read_rules().rules
    for finding in found:
        mark = "no" if finding.reason else "ok"
        yield f"  {mark}  {rules[finding.rule]}{f': {finding.reason}' if finding.reason else ''}"
