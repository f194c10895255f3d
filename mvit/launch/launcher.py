"""One run, from its raw configuration to its exit code."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from mvit import rundir
from mvit.check import ConfigError, Problem, check, judge
from mvit.config import ImageFolderData, RunConfig
from mvit.data.dataset import look
from mvit.data.facts import DatasetError
from mvit.data.imagefolder import emptied, scan
from mvit.data.readable import unreadable_cached
from mvit.launch import confusion, console, provenance, supervise
from mvit.launch.plan import CHECKOUT, Host, data_rules, describe, host_rules, make_plan, this_host
from mvit.launch.result import past_runs, result_row
from mvit.launch.supervise import Failure, Outcome
from mvit.launch.sweep import Sweep
from mvit.launch.tracking import Tracker, store_uri
from mvit.plan import DatasetFacts, LaunchPlan
from mvit.rundir import RunDir


def launch(raw: Mapping[str, Any], *, argv: Sequence[str], sweep: Sweep | None) -> int:
    """Check, plan, run, mirror, report; returns the exit code, raises `ConfigError` for a wrong request."""
    began = time.monotonic()
    host = this_host()
    config, facts = _checked(raw, host)
    runs = CHECKOUT / config.runs_dir
    path = (sweep.place(config) if sweep else runs / config.name) / rundir.stamp()
    if config.dry_run:
        _show(config, make_plan(config, host=host, facts=facts, folder=path), runs)
        return 0

    facts = _readable(config, facts)
    plan = make_plan(config, host=host, facts=facts, folder=path)
    folder = rundir.create(path)
    rundir.write_run(folder, config, plan)
    made_of, patch = provenance.collect(CHECKOUT, argv=list(argv), dataset_fingerprint=facts.fingerprint)
    rundir.write_json(folder.provenance, made_of)
    if patch:
        folder.patch.write_text(patch, encoding="utf-8", errors="surrogateescape")
    console.say(f"mvit: {config.name} in {_shown(path)}")
    console.pairs(describe(config, plan, past=past_runs(config, plan, runs)))
    tracker = _tracker(config, plan, folder, made_of, sweep)
    outcome = Outcome("FAILED", 1, Failure(None, "launcher", "the launcher itself ended", None, None))
    with supervise.stopping() as stop:  # held until the end is recorded, so that the status stays true
        if tracker:
            tracker.start()
        try:
            with console.ProgressView(config, plan, folder) as view:
                outcome = supervise.run(plan, folder, watch=view, stop=stop)
        finally:
            if tracker:
                _finish_tracking(tracker, folder, plan, outcome)
    result = rundir.read_json(folder.result) if outcome.status == "FINISHED" else None
    row = result_row(config, plan, result, folder) if result else None
    where = tracker.run_url_hint() if tracker else None
    _report(folder, outcome, row, seconds=time.monotonic() - began, where=where)
    if sweep:
        sweep.add(path.name, outcome, row, best=result["metrics"].get("best/val_acc1") if result else None)
    return outcome.exit_code


def _checked(raw: Mapping[str, Any], host: Host) -> tuple[RunConfig, DatasetFacts]:
    """The configuration and a look at its data; raises `ConfigError` with all that is wrong, here and there."""
    sections, problems = check(raw)
    if raw.get("dry_run") is not True:  # a plan can be made for cards that are elsewhere
        problems += judge(host_rules(host), sections)
    facts = None
    if "data" in sections:
        try:
            facts = look(sections["data"])
            problems += judge(data_rules(facts), sections)
        except DatasetError as error:
            problems.append(error.problem)
    if problems or facts is None:
        raise ConfigError(*problems)
    return RunConfig.model_validate(dict(raw)), facts


def _readable(config: RunConfig, facts: DatasetFacts) -> DatasetFacts:
    """The facts without the unreadable images of a folder; raises `ConfigError` naming them where none may be."""
    data = config.data
    if not isinstance(data, ImageFolderData):
        return facts
    classes, train, val = scan(data)
    root = Path(data.root)
    trains = config.task.kind == "train"
    broken = unreadable_cached(
        root,
        (train, val) if trains else (val,),
        folder=CHECKOUT / config.runs_dir / ".readable",
        threads=data.workers,
        before=lambda count: console.say(f"mvit: reading {count} images once, to find unreadable ones"),
    )
    if broken and data.on_unreadable == "refuse":
        remedy = "remove or repair it, or set data.on_unreadable=skip"
        raise ConfigError(*(Problem("data.root", str(root / path), "is no readable image", remedy) for path in broken))
    if trains and (lost := emptied(train, broken, classes)):
        remedy = "repair its images, or remove the class"
        raise ConfigError(*(Problem("data.root", name, "is a class without a readable image", remedy) for name in lost))
    of_train = len(frozenset(broken) & frozenset(train.paths))
    left = {"num_train": facts.num_train - of_train, "num_val": facts.num_val - (len(broken) - of_train)}
    facts = facts.model_copy(update={**left, "skipped": tuple(broken)})
    if problems := list(judge(data_rules(facts), dict(config))):
        raise ConfigError(*problems)
    return facts


def _show(config: RunConfig, plan: LaunchPlan, runs: Path) -> None:
    """The plan, for `dry_run`."""
    console.pairs(describe(config, plan, past=past_runs(config, plan, runs)))
    console.pairs([("command", " ".join(plan.argv))])
    console.pairs(("" if index else "environment", f"{k}={v}") for index, (k, v) in enumerate(plan.env.items()))


def _tracker(
    config: RunConfig, plan: LaunchPlan, folder: RunDir, made_of: Mapping[str, Any], sweep: Sweep | None
) -> Tracker | None:
    if config.tracking.kind == "none":
        return None
    devices = f"{plan.world_size} {plan.device}"
    return Tracker(
        folder,
        tracking=config.tracking,
        uri=store_uri(config.tracking, CHECKOUT),
        params=_flat(config.model_dump(mode="json")),
        tags={
            "mlflow.runName": f"{config.name}-{folder.path.name}",
            "mlflow.source.git.commit": made_of.get("commit") or "",
            "mlflow.user": made_of.get("user") or "",
            "host": made_of.get("host") or "",
            "topology": devices,
            "folder": str(folder.path),
        },
        parent_run_id=sweep.parent_run(config) if sweep else None,
    )


def _flat(value: Any, prefix: str = "") -> dict[str, str]:
    """`{"a": {"b": 1}}` as `{"a.b": "1"}`."""
    if not isinstance(value, dict):
        return {prefix: str(value)}
    parts = cast(dict[str, Any], value)
    return {k: v for key, part in parts.items() for k, v in _flat(part, f"{prefix}.{key}".lstrip(".")).items()}


def _finish_tracking(tracker: Tracker, folder: RunDir, plan: LaunchPlan, outcome: Outcome) -> None:
    artifacts = [folder.run, folder.provenance, folder.patch, folder.result, folder.journal]
    if folder.confusion.exists():
        picture = folder.path / "confusion_matrix.png"
        try:
            confusion.draw(rundir.read_json(folder.confusion)["counts"], plan.dataset.class_names, picture)
            artifacts.append(picture)
        except Exception as error:  # noqa: BLE001  a picture is no reason to lose the status of a run
            console.complain([f"no picture of the confusion matrix: {type(error).__name__}: {error}"])
    tags: dict[str, str] = {}
    if outcome.failure:
        tags["error"] = outcome.failure.message[:5000]
        artifacts += sorted(folder.logs.glob("*.log")) + sorted(folder.status.glob("*.json"))
    problem = tracker.finish(outcome.status, artifacts=[path for path in artifacts if path.exists()], tags=tags)
    if problem:
        console.complain([problem])


def _report(folder: RunDir, outcome: Outcome, row: dict[str, str] | None, *, seconds: float, where: str | None) -> None:
    if row is not None:
        console.result_table([row])
    if outcome.status == "KILLED":
        console.complain([f"stopped by signal {outcome.exit_code - 128}"])
    if outcome.failure:
        console.complain(outcome.failure.lines())
    console.say(f"mvit: {outcome.status} in {seconds:.0f} s, {_shown(folder.path)}")
    if where is not None:
        served = where.startswith("http")  # a server shows itself, a database needs one
        console.say(f"mvit: MLflow: {where}{'' if served else '; make ui shows it'}")


def _shown(path: Path) -> str:
    return str(path.relative_to(CHECKOUT)) if path.is_relative_to(CHECKOUT) else str(path)
