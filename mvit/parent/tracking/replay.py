"""Run folders into a tracking store, after the fact: what their runs could not send, or never tried to.

A second time there is nothing to send.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from mvit import console
from mvit.config import MlflowTracking
from mvit.credentials import redacted
from mvit.errors import RunDirError, first_line
from mvit.parent.sweep.outcome import SweepOutcome
from mvit.parent.tracking.content import (
    artifacts_of,
    dataset_of,
    draw_pictures,
    failure_tags_of,
    mlflow_status,
    parameters_of,
    tags_of,
    tags_of_sweep,
)
from mvit.parent.tracking.mirror import (
    Closing,
    Target,
    TornJournal,
    claimed,
    last_sign,
    open_mirror,
    run_tags,
)
from mvit.parent.tracking.names import name_of_sweep
from mvit.parent.tracking.store import connect, ensure_experiment, reason, store_uri, uri_of
from mvit.parent.tracking.sweep_run import close_sweep, open_sweep, params_of
from mvit.places import PROJECT
from mvit.rundir.ending import EndStatus, record_mirrored
from mvit.rundir.frozen import Run, read_run
from mvit.rundir.ledger import recorded_request
from mvit.rundir.ownership import alive
from mvit.rundir.paths import RunDir
from mvit.rundir.state import run_status, sweep_status
from mvit.rundir.sweep import is_sweep
from mvit.rundir.tracking import read_record

PATIENCE_S = 60
"""Limit for one answer of a server: here somebody waits for the points, not for the end of a run."""


@dataclass(frozen=True)
class _Place:
    """Where a run shall be."""

    uri: str
    experiment: str


@dataclass(frozen=True)
class _Run:
    """What is sent of a folder beside its journal."""

    run: Run
    place: _Place

    @property
    def folder(self) -> RunDir:
        return self.run.folder


def sync(path: Path, *, uri: str | None, experiment: str | None) -> int:
    """Send the run folder, or every one below, to the store named, else to each one's own. Returns the exit code."""
    files = sorted(file for file in path.resolve().rglob("run.json") if "checkpoints" not in file.parts)
    runs: list[_Run] = []
    code = 0
    for file in files:
        try:
            run = _read(RunDir(file.parent), uri=uri, experiment=experiment)
        except (RunDirError, OSError, ValueError, KeyError, TypeError) as error:
            code = _complain(f"{console.shown(file.parent)}: {first_line(error)}")
        else:
            if run:
                runs.append(run)
    sent = 0
    stores = dict.fromkeys(run.place.uri for run in runs)
    for store in stores:
        of_store = [run for run in runs if run.place.uri == store]
        try:
            played, unsent = _Store(store).play(of_store, path.resolve())
        except Exception as error:  # noqa: BLE001  a client raises many kinds
            code = _complain(f"{reason(error, store)}; nothing is lost: run it again later")
            continue
        sent += played
        for line in unsent:
            code = _complain(line)
    if sent and any(not store.startswith(("http://", "https://")) for store in stores):
        console.hint(f"see them with: {console.mvit_command('ui')}")
    if not sent and not code:
        where = f": {len(runs)} in {', '.join(map(redacted, stores))}" if runs else f", no run to send in {path}"
        print(f"mvit: nothing to do{where}")
    return code


class _Store:
    """One store, and the experiments that were asked for; raises what the client raises."""

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self._client = connect(uri, request_timeout_s=PATIENCE_S)
        self._targets: dict[str, Target] = {}

    def play(self, runs: list[_Run], below: Path) -> tuple[int, list[str]]:
        """How many runs something was sent of, and a line for each that the store takes nothing of."""
        sent, unsent = 0, list[str]()
        sweeps: dict[Path, _Run] = {}
        for run in runs:
            sweep = run.folder.path.parent
            with claimed(run.folder) as free:
                status = run_status(run.folder)
                match status if free else None:
                    case None:
                        print(f"{console.shown(run.folder.path)}: skipped: it is being mirrored")
                    case "RUNNING":
                        print(f"{console.shown(run.folder.path)}: skipped: {alive(run.folder) or 'it is running'}")
                    case "FROZEN":
                        print(f"{console.shown(run.folder.path)}: skipped: not started")
                    case ended:
                        try:
                            sent += self._play(run, ended)
                        except Exception as error:  # noqa: BLE001  a client raises many kinds
                            unsent.append(self._why_alone(run.folder.path, run.place, error))
            if is_sweep(sweep) and sweep.is_relative_to(below):
                sweeps[sweep] = run
        for sweep, run in sweeps.items():
            try:
                sent += self._close(sweep)
            except Exception as error:  # noqa: BLE001  a client raises many kinds
                unsent.append(self._why_alone(sweep, run.place, error))
        return sent, unsent

    def _why_alone(self, path: Path, place: _Place, error: Exception) -> str:
        """Why a run or a sweep cannot be sent, in one line; raises what the client raises if it is the store."""
        self._client.get_experiment_by_name(place.experiment)
        return f"{console.shown(path)}: {reason(error, place.uri)}"

    def _play(self, run: _Run, status: EndStatus) -> bool:
        """Whether something was sent of the run."""
        target = self._target(run.place)
        tags = run_tags(tags_of(run.run), parent_run_id=self._parent(run))
        began = run.folder.run.stat().st_mtime
        mirror = open_mirror(self._client, run.folder, target=target, tags=tags, began=began)
        had = mirror.record.points
        mirror.set_params(parameters_of(run.run))
        mirror.set_dataset(dataset_of(run.run))
        mirror.set_tags(tags, replacing=False)
        closing = _closing(run, status)
        torn = ""
        try:
            mirror.close(closing, deduplicate=True)
        except TornJournal as error:
            torn = f"; {error}, left out"
        if mirror.is_recorded:  # else this is a copy
            record_mirrored(run.folder, mirrored=True)
        sent, present = mirror.sent, had + mirror.sent.duplicates
        what = f"{sent.points} points sent" if sent else "nothing new"
        place = f"run {mirror.run_id[:8]} ({closing.status})"
        print(f"{console.shown(run.folder.path)}: {what}, {present} already there, {place}{torn}")
        return bool(sent)

    def _target(self, place: _Place) -> Target:
        name = place.experiment
        if name not in self._targets:
            self._targets[name] = Target(self._uri, name, ensure_experiment(self._client, self._uri, name))
        return self._targets[name]

    def _parent(self, run: _Run) -> str | None:
        """The run of the sweep, opened if its launcher could not."""
        sweep = run.folder.path.parent
        if not is_sweep(sweep):
            return None
        tracking = MlflowTracking(kind="mlflow", uri=None, experiment=run.place.experiment)
        requested, tags = recorded_request(sweep), tags_of_sweep(sweep)
        name = name_of_sweep(sweep, requested)
        params = params_of(requested) if requested else dict[str, str]()
        return open_sweep(sweep, tracking=tracking, uri=self._uri, name=name, tags=tags, params=params)

    def _close(self, sweep: Path) -> bool:
        """End the sweep's run where nobody has; whether there was something to do."""
        record, status = read_record(RunDir(sweep)), sweep_status(sweep)
        run_id = record.run_in(self._uri) if record else None
        if status in ("RUNNING", "FROZEN") or run_id is None:
            return False
        if self._client.get_run(run_id).info.status != "RUNNING":
            return False
        close_sweep(sweep, uri=self._uri, status=mlflow_status(status), summary=SweepOutcome(sweep).summary())
        print(f"{console.shown(sweep)}: sweep {status}, run {run_id[:8]}")
        return True


def _read(folder: RunDir, *, uri: str | None, experiment: str | None) -> _Run | None:
    """The run and its place; None for one that is not to be mirrored."""
    run = read_run(folder)
    tracking, record = run.config.tracking, read_record(folder)
    own = tracking.experiment if isinstance(tracking, MlflowTracking) else "mvit"
    if uri is not None:
        where = store_uri(MlflowTracking(kind="mlflow", uri=uri, experiment=own), Path.cwd())
    elif isinstance(tracking, MlflowTracking):
        where = uri_of(record.store) if record else store_uri(tracking, PROJECT)
    else:
        print(f"{console.shown(folder.path)}: skipped: tracking=none; pass --uri to send it")
        return None
    return _Run(run, _Place(where, experiment or own))


def _closing(run: _Run, status: EndStatus) -> Closing:
    """What goes with a run that ended so."""
    folder = run.folder
    if not folder.confusion_picture.exists() and (problem := draw_pictures(run.run)):
        _complain(problem)
    tags = {} if status == "FINISHED" else failure_tags_of(folder)
    return Closing(mlflow_status(status), tuple(artifacts_of(folder, status=status)), tags, last_sign(folder))


def _complain(line: str) -> int:
    print(f"mvit: {line}", file=sys.stderr)
    return 1
