"""The course of a run, new or resumed: its attempts, its mirror in MLflow, its end."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mvit import console
from mvit.config import RunConfig
from mvit.files import read_json, write_json
from mvit.parent import signals, supervise
from mvit.parent.command import make_command
from mvit.parent.host import CHECKOUT, Host, free_port, is_free
from mvit.parent.progress import ProgressView
from mvit.parent.report import confusion
from mvit.parent.report.row import result_row
from mvit.parent.tracking.content import artifacts_of, error_tags, of_folder, picture_of
from mvit.parent.tracking.live import Tracker
from mvit.parent.tracking.store import store_uri
from mvit.plan import LaunchPlan
from mvit.rundir import checkpoints
from mvit.rundir.ending import RETRYABLE, Failure, Outcome, record_end, record_mirrored
from mvit.rundir.paths import RunDir

OTHER_PORTS = 3
"""Attempts that a taken port may cost, beside the restarts."""
LAST_WORD_S = 60.0
LAST_WORD_STOPPED_S = 2.0
"""Longest wait for MLflow at the end; who stops a run wants it to end, and the next launch tells MLflow the rest."""


@dataclass(frozen=True)
class Ended:
    """What a run left: its outcome, and for a finished one its result and the row of it."""

    outcome: Outcome
    row: dict[str, str] | None
    result: dict[str, Any] | None


def follow(
    config: RunConfig,
    plan: LaunchPlan,
    folder: RunDir,
    *,
    host: Host,
    parent_run_id: str | None = None,
    tags: Mapping[str, str] | None = None,
) -> Ended:
    """Run the folder's work to its end and report it; this process has claimed the folder."""
    began = time.monotonic()
    tracker = _tracker(config, folder, parent_run_id=parent_run_id, tags=tags or {})
    outcome = Outcome("FAILED", 1, Failure("code", None, "launcher", "the launcher itself ended"))
    with signals.collecting() as stop:  # held until the end is recorded, so that the status stays true
        if tracker:
            tracker.start()
        try:
            with ProgressView(config, plan, folder) as view:
                outcome = _attempts(config, folder, host=host, watch=view, stop=stop)
        finally:
            _record(folder, outcome)
            if tracker:
                heard = len(stop)
                _finish_tracking(tracker, folder, plan, outcome, give_up=lambda: len(stop) > heard)
    if stop:  # whatever became of this run, nothing is to come after it
        outcome = replace(outcome, exit_code=128 + stop[0])
    result = read_json(folder.result) if outcome.status == "FINISHED" else None
    row = result_row(config, plan, result, folder) if result else None
    where = tracker.run_url_hint() if tracker else None
    _report(folder, outcome, row, seconds=time.monotonic() - began, where=where)
    return Ended(outcome, row, result)


def _attempts(config: RunConfig, folder: RunDir, *, host: Host, watch: supervise.Watcher, stop: list[int]) -> Outcome:
    """Try, and try again what failed for a reason that may not come back."""
    ports = restarts = 0
    attempt = 1 + max((_number(path) for path in folder.logs.glob("attempt-*")), default=0)
    while True:
        if not is_free(host.port):
            host = replace(host, port=free_port())
        command = make_command(config, host=host, folder=folder, attempt=attempt)
        outcome = supervise.run(command, folder, limits=config.limits, watch=watch, stop=stop)
        failure = outcome.failure
        if stop or failure is None:
            return outcome
        if failure.kind == "port" and ports < OTHER_PORTS:
            ports += 1
            console.say(f"mvit: {failure.message}; trying another one")
        elif failure.kind in RETRYABLE and restarts < config.train.max_restarts:
            restarts += 1
            step = checkpoints.newest_step(folder)
            place = "from the beginning" if step is None else f"after step {step}"
            cause = next(failure.lines())
            console.say(f"mvit: {cause}; restart {restarts} of {config.train.max_restarts}, {place}")
        else:
            return outcome
        attempt += 1


def _number(path: Path) -> int:
    number = path.name.removeprefix("attempt-")
    return int(number) if number.isdecimal() else 0


def _record(folder: RunDir, outcome: Outcome) -> None:
    """error.json and end.json: what the folder says of its end, whatever MLflow does."""
    error = outcome.failure.fields() if outcome.failure else None
    if error:
        try:
            write_json(folder.error, error)
        except OSError as problem:
            console.complain([f"{folder.error} cannot be written: {problem.strerror}"])
    record_end(folder, outcome.status, exit_code=outcome.exit_code, error=error)


def _tracker(
    config: RunConfig, folder: RunDir, *, parent_run_id: str | None, tags: Mapping[str, str]
) -> Tracker | None:
    if config.tracking.kind == "none":
        return None
    params, own_tags = of_folder(folder)
    return Tracker(
        folder,
        tracking=config.tracking,
        uri=store_uri(config.tracking, CHECKOUT),
        params=params,
        tags={**own_tags, **tags},
        parent_run_id=parent_run_id,
    )


def _finish_tracking(
    tracker: Tracker, folder: RunDir, plan: LaunchPlan, outcome: Outcome, *, give_up: Callable[[], bool]
) -> None:
    if folder.confusion.exists() and outcome.status != "KILLED":  # loading what draws takes seconds
        try:
            counts = read_json(folder.confusion)["counts"]
            confusion.draw(counts, plan.dataset.class_names, picture_of(folder))
        except Exception as error:  # noqa: BLE001  a picture is no reason to lose the status of a run
            console.complain([f"no picture of the confusion matrix: {type(error).__name__}: {error}"])
    tags = error_tags(outcome.failure.fields()) if outcome.failure else {}  # a full disk has no error.json
    artifacts = artifacts_of(folder, status=outcome.status)
    timeout_s = LAST_WORD_STOPPED_S if outcome.status == "KILLED" else LAST_WORD_S
    problem = tracker.finish(outcome.status, artifacts=artifacts, tags=tags, timeout_s=timeout_s, give_up=give_up)
    if problem:
        console.complain([problem])
    record_mirrored(folder, mirrored=problem is None)


def _report(folder: RunDir, outcome: Outcome, row: dict[str, str] | None, *, seconds: float, where: str | None) -> None:
    if row is not None:
        console.result_table([row])
    resume = f"python -m mvit resume {shown(folder.path)}"
    # Reads the checkpoint, which a finished run need not.
    step = None if outcome.status == "FINISHED" else checkpoints.newest_step(folder)
    if outcome.status == "KILLED":
        console.complain([f"stopped by signal {outcome.exit_code - 128}"])
        console.complain([f"stopped {_after(step)}; continue with: {resume}"])
    if outcome.failure:
        console.complain(outcome.failure.lines())
        if outcome.failure.kind in RETRYABLE:
            console.complain([f"the newest checkpoint is {_of(step)}; continue with: {resume}"])
    console.say(f"mvit: {outcome.status} in {seconds:.0f} s, {shown(folder.path)}")
    if where is not None:
        served = where.startswith("http")  # a server shows itself, a database needs one
        console.say(f"mvit: MLflow: {where}{'' if served else '; make ui shows it'}")


def _after(step: int | None) -> str:
    return "before its first checkpoint" if step is None else f"after step {step}"


def _of(step: int | None) -> str:
    return "none" if step is None else f"that of step {step}"


def shown(path: Path) -> str:
    """The path as a person types it: below the checkout relative to it."""
    return str(path.relative_to(CHECKOUT)) if path.is_relative_to(CHECKOUT) else str(path)
