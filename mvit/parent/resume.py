"""Runs that go on: from their folder and its newest checkpoint, as they were made, or as a fork that is changed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, cast

from mvit import console
from mvit.config import MlflowTracking, RunConfig
from mvit.errors import ConfigError, Problem, RunDirError
from mvit.files import read_json, read_mapping, write_json
from mvit.parent import execute, provenance, signals
from mvit.parent.freeze import begin, checked, readable
from mvit.parent.host import CHECKOUT, this_host
from mvit.parent.plan import make_plan
from mvit.parent.request.check import parse
from mvit.parent.sweep.sweep import SWEEP, never_begun, say_never_begun
from mvit.parent.tracking.mirror import record_at
from mvit.parent.tracking.store import problem_of, store_uri
from mvit.parent.tracking.sweep_run import close_sweep
from mvit.rundir import checkpoints, ownership, paths
from mvit.rundir.checkpoints import Checkpoint
from mvit.rundir.ending import record_end, record_mirrored
from mvit.rundir.frozen import read_run
from mvit.rundir.paths import RunDir
from mvit.rundir.status import workers_finished

MAY_CHANGE = ("limits.", "train.max_restarts")
"""What only the launcher reads: another value gives the same run."""


def resume(path: Path, overrides: Sequence[str], *, fork: bool) -> int:
    """Continue a run, every unfinished trial of a sweep, or a changed copy of a run; returns the exit code."""
    with signals.raising():
        return _reported(path, overrides, fork=fork)


def _reported(path: Path, overrides: Sequence[str], *, fork: bool) -> int:
    try:
        path = path.resolve()
        trials = _trials(path)
        if fork:
            if trials:
                raise RunDirError(f"{path} is the folder of a sweep; fork one of its trials")
            argv = ["mvit", "resume", str(path), *overrides, "--fork"]
            return _fork(RunDir(path), overrides, argv=argv)
        return _resume_sweep(path, trials, overrides) if trials else _resume(RunDir(path), overrides)
    except ConfigError as error:
        console.complain(str(problem) for problem in error.problems)
    except RunDirError as error:
        console.complain([str(error)])
    except signals.Stopped as stopped:  # before or after the run itself, which ends its own processes
        return stopped.exit_code
    return 2


def _trials(path: Path) -> list[RunDir]:
    """The runs of a sweep's folder; none for a run's own folder. Raises `RunDirError` for one above several runs."""
    found = [] if (path / "run.json").exists() else [RunDir(file.parent) for file in sorted(path.glob("*/run.json"))]
    if found and not (path / SWEEP).exists() and not (path / "launcher.json").exists():
        raise RunDirError(f"{path} holds runs that are no sweep; name one of them, as {found[-1].path.name}")
    return found


def _resume(folder: RunDir, overrides: Sequence[str]) -> int:
    made, plan = read_run(folder)
    config = parse(_overridden(_plain(made), overrides))
    changed = _changed(_plain(made), _plain(config))
    if changed := [problem for problem in changed if not problem.path.startswith(MAY_CHANGE)]:
        raise ConfigError(*changed)
    if is_finished(folder):
        raise RunDirError(f"{folder.path} is FINISHED; --fork continues it as a new run, with train.epochs=... say")
    host = this_host()
    _, facts = checked(_plain(config), host)
    if facts.fingerprint != plan.dataset.fingerprint:
        raise RunDirError(f"{folder.path}: its data has changed since the run was made; start a new run")
    place, code = _place(folder), _code_has_changed(folder)
    ownership.claim(folder)
    console.say(f"mvit: {config.name} in {execute.shown(folder.path)}, resumed {place}")
    if code:
        console.say(code)
    return execute.follow(config, plan, folder, host=host, parent_run_id=_parent_run(folder)).outcome.exit_code


def is_finished(folder: RunDir) -> bool:
    """Whether the run has come to its end."""
    end = read_mapping(folder.end)
    return end.get("status") == "FINISHED" if end else workers_finished(folder)


def _place(folder: RunDir) -> str:
    if (step := checkpoints.newest_step(folder)) is not None:
        return f"after step {step}"
    damaged = next(checkpoints.newest_first(folder), None)
    if damaged is None:
        return "from the beginning: it has no checkpoint"
    raise RunDirError(f"{folder.checkpoints}: none of its checkpoints is whole; remove them to begin anew")


def _resume_sweep(path: Path, trials: list[RunDir], overrides: Sequence[str]) -> int:
    """One trial after the other; one that cannot be resumed leaves the others their turn."""
    for trial in trials:
        if ownership.lives(trial):  # with its end recorded, it is busy with the next one
            raise RunDirError(f"{path} is still running; stop it first")
    codes = [0]
    for trial in trials:
        if is_finished(trial):
            continue
        try:
            codes.append(_resume(trial, overrides))
        except (ConfigError, RunDirError) as error:
            console.complain(str(error).splitlines())
            codes.append(2)
        if codes[-1] >= 128:
            break
    ends = [(read_mapping(trial.end) or {}).get("status", "FAILED") for trial in trials]
    left = never_begun(path)
    whole = set(ends) == {"FINISHED"} and not left
    status = "KILLED" if codes[-1] >= 128 else "FINISHED" if whole else "FAILED"
    counts = [f"{ends.count(kind)} {kind}" for kind in sorted(set(ends))]
    counts += [f"{len(left)} not begun"] if left else []
    console.say(f"mvit: sweep {status}, {execute.shown(path)}: {', '.join(counts)}")
    say_never_begun(left)
    _close_sweep(path, trials, status=status)
    return max(codes) or (0 if whole else 1)


def _close_sweep(path: Path, trials: list[RunDir], *, status: Literal["FINISHED", "FAILED", "KILLED"]) -> None:
    """Give the sweep's run in MLflow, where it has one, its new status."""
    tracking = read_run(trials[0])[0].tracking
    if record_at(path / "tracking.json") is None or not isinstance(tracking, MlflowTracking):
        return
    found: list[float] = []
    for trial in trials:
        with suppress(OSError, ValueError, KeyError, TypeError):
            found.append(float(read_json(trial.result)["metrics"]["best/val_acc1"]))
    summary = {"best/val_acc1": max(found)} if found else {}
    uri = store_uri(tracking, CHECKOUT)
    record_end(RunDir(path), status, exit_code=None, error=None)
    problem = problem_of(lambda: close_sweep(path, uri=uri, status=status, summary=summary))
    if problem:
        console.complain([problem])
    record_mirrored(RunDir(path), mirrored=problem is None)


def _parent_run(folder: RunDir) -> str | None:
    """The MLflow run of the sweep that a trial belongs to."""
    above = folder.path.parent
    record = None if (above / "run.json").exists() else record_at(above / "tracking.json")
    return record["run_id"] if record else None


def _fork(origin: RunDir, overrides: Sequence[str], *, argv: Sequence[str]) -> int:
    """A new run beside its origin, which begins with a copy of the newest checkpoint."""
    config, _ = read_run(origin)
    if reason := ownership.alive(origin):
        raise RunDirError(f"{origin.path} is still running: {reason}; stop it first")
    newest = checkpoints.newest_whole(origin)
    if newest is None:
        raise RunDirError(f"{origin.path} has no checkpoint to begin with; launch a new run instead")
    host = this_host()
    changed, facts = checked(_overridden(_plain(config), overrides), host)
    facts = readable(changed, facts)
    plan = make_plan(changed, host=host, facts=facts)
    if newest.step > plan.last_step or (newest.step == plan.last_step and _is_evaluated(newest)):
        rule = f"ends after step {plan.last_step}, and the checkpoint is of step {newest.step}"
        raise ConfigError(Problem("train.epochs", changed.train.epochs, rule, "raise it, or train.max_steps"))
    about = {"forked_from": {"folder": str(origin.path), "step": newest.step, "run_sha256": _sha(origin)}}
    folder = begin(origin.path.parent / paths.new_run_id(), changed, plan, argv=argv, about=about)
    _inherit(origin, folder, newest)
    for problem in _changed(_plain(config), _plain(changed)):
        console.say(f"  {problem.path}: {problem.value}")
    console.say(f"  continues {execute.shown(origin.path)} after step {newest.step}")
    tags = {"mvit.forked_from": origin.path.name}
    ended = execute.follow(changed, plan, folder, host=host, parent_run_id=_parent_run(origin), tags=tags)
    return ended.outcome.exit_code


def _inherit(origin: RunDir, folder: RunDir, newest: Checkpoint) -> None:
    """The newest checkpoint, and the best one with its confusion matrix, until there is a better one."""
    checkpoints.give(newest, folder)
    write_json(folder.checkpoints / "last.json", {"file": newest.sidecar.stem})
    best = checkpoints.best_whole(origin)
    if best is not None:
        if best != newest:
            checkpoints.give(best, folder)
        write_json(folder.checkpoints / "best.json", {"file": best.sidecar.stem})
        if origin.confusion.exists():
            shutil.copy2(origin.confusion, folder.confusion)


def _is_evaluated(checkpoint: Checkpoint) -> bool:
    return bool(read_json(checkpoint.sidecar).get("progress", {}).get("evaluated"))


def _sha(folder: RunDir) -> str:
    return str(read_json(folder.run)["sha256"])


def _code_has_changed(folder: RunDir) -> str | None:
    """Says so where the code is not that of the run's beginning: its numbers are then of both."""
    made_of = read_mapping(folder.provenance) or {}
    now, patch = provenance.collect(CHECKOUT, argv=[], dataset_fingerprint="")
    before = folder.patch.read_text(encoding="utf-8", errors="surrogateescape") if folder.patch.is_file() else ""
    if (made_of.get("commit"), before) == (now.get("commit"), patch):
        return None
    return f"mvit: the code has changed since the run was made, at {str(made_of.get('commit') or 'no commit')[:10]}"


def _plain(config: RunConfig) -> dict[str, Any]:
    return config.model_dump(mode="json")


def _overridden(raw: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """A copy with `key=value` set; raises `ConfigError`. Groups are chosen at the launch, not here."""
    raw = json.loads(json.dumps(raw))
    problems: list[Problem] = []
    for override in overrides:
        key, equals, text = override.partition("=")
        *inner, last = key.lstrip("+").split(".")
        place: Any = raw
        for part in inner:
            place = cast(dict[str, Any], place).get(part) if isinstance(place, dict) else None
        if not equals or not isinstance(place, dict) or last not in place:
            remedy = "set one of run.json's, as optimizer.lr=1e-3"
            problems.append(Problem(override, None, "sets no value of the run", remedy))
            continue
        section = cast(dict[str, Any], place)
        if isinstance(section[last], dict):
            problems.append(Problem(override, None, "chooses a group", "set its single values, as optimizer.lr=1e-3"))
            continue
        section[last] = text if isinstance(section[last], str) else _value(text)
    if problems:
        raise ConfigError(*problems)
    return raw


def _value(text: str) -> Any:
    """Numbers, true, false, null and lists of them; all else is text."""
    with suppress(ValueError):
        return json.loads(text)
    if text.startswith("[") and text.endswith("]"):
        return [_value(part.strip()) for part in text[1:-1].split(",")]
    return text


def _changed(before: dict[str, Any], after: dict[str, Any], prefix: str = "") -> list[Problem]:
    """The paths that differ."""
    found: list[Problem] = []
    for key, value in after.items():
        old, path = before.get(key), f"{prefix}{key}"
        if isinstance(value, dict) and isinstance(old, dict):
            found += _changed(cast(dict[str, Any], old), cast(dict[str, Any], value), f"{path}.")
        elif value != old:
            rule = f"is not what the run was made with, {old}"
            found.append(Problem(path, value, rule, "leave it out, or continue as a new run with --fork"))
    return found
