"""A sweep as an array of Slurm: its trials are submitted at once and left; whoever comes back collects."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from mvit import console
from mvit.config import RunConfig, SlurmLaunch
from mvit.console import mvit_command, shown
from mvit.parent.host import this_host
from mvit.parent.slurm.exclusion import excluded, tell_excluded
from mvit.parent.slurm.queue import State, states, submit
from mvit.parent.slurm.script import array_script
from mvit.parent.sweep.closing import close
from mvit.parent.sweep.mirror import SweepMirror
from mvit.parent.sweep.outcome import SweepOutcome
from mvit.parent.sweep.trials import Trial
from mvit.rundir.ending import read_ending
from mvit.rundir.job import Job, read_job, write_job
from mvit.rundir.ledger import Ledger, SweepRequest, TrialEnded, read_events
from mvit.rundir.ownership import owned
from mvit.rundir.paths import RunDir, writable
from mvit.rundir.sweep import read_trials, trials_of
from mvit.sweep_config import SearchSweep, SweepConfig


def may_leave(sweep: SweepConfig) -> bool:
    """Whether a sweep needs no process that stays with it: its trials are known, and none waits for another one."""
    needs = isinstance(sweep, SearchSweep) or sweep.pruner.kind != "none" or sweep.fail_fast or sweep.max_hours
    return not needs


def send_array(
    folder: Path,
    trials: Sequence[Trial],
    *,
    requested: SweepRequest,
    example: RunConfig,
    overrides: Sequence[str] = (),
) -> int:
    """Submit the trials, with as many of them at once as the sweep has slots, and return.

    `overrides` are limits for all of them. Raises `ConfigError` where their jobs would differ in size.
    """
    runs = {trial.number: trial.run for trial in trials}
    assert isinstance(example.launch, SlurmLaunch)
    without = excluded(trials_of(folder), example.launch)
    script = array_script(
        RunDir(folder),
        runs,
        host=this_host(),
        at_once=len(requested.slots),
        arguments=overrides,
        without=without,
    )
    SweepMirror(folder, example.tracking, requested).open()
    job = submit(RunDir(folder), script)
    with writable(folder):
        for number, run in runs.items():
            write_job(run.folder, Job(id=f"{job.id}_{number}", cluster=job.cluster))
    tell_excluded(without)
    console.say(f"mvit: job {job.id} of Slurm, an array of {len(trials)}: {shown(RunDir(folder).job_script)}")
    console.say(f"mvit: check its status with: {mvit_command('ls', folder)}")
    console.say(f"mvit: once all have ended, collect their results with: {mvit_command('resume', folder)}")
    return 0


def queued(folder: Path) -> Mapping[int, State]:
    """Which trials of the sweep wait or run as jobs, by number; raises as `states` does."""
    jobs = {trial.trial: job for trial in read_trials(folder) if (job := read_job(RunDir(folder / trial.folder)))}
    known = states(jobs.values()) if jobs else {}
    return {number: known[job] for number, job in jobs.items() if job in known}


def tell_queued(folder: Path, waiting: Mapping[int, State]) -> None:
    """Say how far the sweep has come."""
    ended = Counter(one.word for one in SweepOutcome(folder).trials if one.number not in waiting)
    counts = [f"{count} {word}" for word, count in (*sorted(ended.items()), *Counter(waiting.values()).items())]
    console.say(f"mvit: {shown(folder)} is in the Slurm queue: {', '.join(counts)}")


def collect(folder: Path) -> None:
    """Tell the ledger how trials ended as tasks of an array, which nobody watched."""
    recorded = {event.trial: event for event in read_events(folder) if isinstance(event, TrialEnded)}
    news: list[TrialEnded] = []
    for one in SweepOutcome(folder).trials:
        ending = read_ending(one.folder) if read_job(one.folder) else None
        if ending is None:
            continue
        kind, before = ending.error.kind if ending.error else None, recorded.get(one.number)
        if before is None or (before.status, before.kind, before.values) != (ending.status, kind, one.values):
            news.append(TrialEnded(trial=one.number, status=ending.status, kind=kind, values=dict(one.values)))
    with suppress(OSError):  # a full disk: folders say how trials ended
        Ledger(folder).append(*news)


def close_array(folder: Path, *, requested: SweepRequest, example: RunConfig) -> int:
    """The end of a sweep of which nothing is left to be submitted; returns its exit code."""
    with owned(RunDir(folder)):
        mirror = SweepMirror(folder, example.tracking, requested)
        mirror.open()
        close(folder, mirror=mirror, pruned=())
    return int(any(one.status != "FINISHED" for one in SweepOutcome(folder).trials))
