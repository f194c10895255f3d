"""The scripts of jobs: files that a person can read, and submit again."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from mvit.config import SlurmLaunch
from mvit.errors import ConfigError, Problem
from mvit.parent.host import Host
from mvit.places import PROJECT
from mvit.program import MVIT
from mvit.rundir.frozen import Run
from mvit.rundir.paths import RunDir

# Slurm tells the batch shell alone (--signal=B:...), and a shell runs its traps between commands: hence `wait`, which a
# signal interrupts, until no signal did. Exit code 75 is a run that stopped and can go on (EX_TEMPFAIL), 138 one that
# SIGUSR1 met before it had begun.
BODY = """\
again=
tell() { woken=yes; kill -s "$1" "$child" 2> /dev/null; }
trap 'again=yes; tell USR1' USR1   # the time limit is near, or others need the nodes
trap 'again=; tell USR2' USR2      # {stop}
trap 'tell TERM' TERM

cd {project} || exit 1
{command} &
child=$!
woken=yes
while [ -n "$woken" ]; do
    woken=
    wait "$child"
    code=$?
done
case $again$code in
    yes75 | yes138) scontrol requeue {job} && exit 0 ;;
esac
exit "$code"
"""

TASK = """\
case $SLURM_ARRAY_TASK_ID in
{trials}
    *) exit 2 ;;
esac
export run job=${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID
exec >> "$run/logs/job-$job.log" 2>&1

"""


def job_script(
    run: Run, launch: SlurmLaunch, *, host: Host, arguments: Sequence[str] = (), without: Sequence[str] = ()
) -> str:
    """What sbatch takes for a run: its options, and what is executed on the first node.

    `arguments` are those of `python -m mvit run`, beside the folder; `without` are machines that it is not to have.
    """
    options = [_name(run.folder), _output(run.folder.logs / "job-%j.log"), *_options(run, launch, without)]
    words = shlex.join([str(run.folder.path), *arguments])
    body = _body(run, host=host, words=words, job='"$SLURM_JOB_ID"')
    return _script(run.config.name, options, body)


def array_script(
    folder: RunDir,
    trials: Mapping[int, Run],
    *,
    host: Host,
    at_once: int,
    arguments: Sequence[str] = (),
    without: Sequence[str] = (),
) -> str:
    """What sbatch takes for the trials of a sweep, each as the task of its number, so many of them at once.

    Raises `ConfigError` where their jobs would differ in what they ask for.
    """
    first, *others = trials.values()
    launch = first.config.launch
    assert isinstance(launch, SlurmLaunch)  # those of the others are equal
    options = list(_options(first, launch, without))
    if any(list(_options(other, launch, without)) != options for other in others):
        rule = "differs between the trials, and the jobs of an array are of one size"
        raise ConfigError(Problem("topology", None, rule, "sweep each topology by itself"))
    array = f"--array={','.join(map(str, trials))}%{at_once}"
    chosen = "\n".join(f"    {number}) run={shlex.quote(str(run.folder.path))} ;;" for number, run in trials.items())
    words = " ".join(('"$run"', *map(shlex.quote, arguments)))
    body = TASK.replace("{trials}", chosen) + _body(first, host=host, words=words, job='"$job"')
    options = [_name(folder), array, _output(folder.path / "jobs.log"), *options]
    return _script(f"{len(trials)} trials", options, body)


def _script(what: str, options: Iterable[str], body: str) -> str:
    lines = "".join(f"#SBATCH {option}\n" for option in options)
    return f"#!/bin/bash\n# {what}: made by mvit; submit it again with: sbatch job.sh\n{lines}\n{body}"


def _body(run: Run, *, host: Host, words: str, job: str) -> str:
    """What executes the run that these words of the shell name."""
    command = f"{shlex.join([host.python, '-m', 'mvit', 'run'])} {words}"
    if run.plan.nodes > 1:
        rank = ' --node-rank "$SLURM_NODEID"'
        # One launcher per node; if one of them fails, the others are to end by themselves, with a verdict.
        command = f"srun --kill-on-bad-exit=0 bash -c {shlex.quote(f'exec {command}{rank}')}"
    body = BODY.replace("{project}", shlex.quote(str(PROJECT))).replace("{stop}", f"{MVIT} stop")
    return body.replace("{command}", command).replace("{job}", job)


def _name(folder: RunDir) -> str:
    return f"--job-name=mvit-{folder.path.name.rpartition('-')[2]}"


def _output(path: Path) -> str:
    return f"--output={shlex.quote(str(path))}"


def _options(run: Run, launch: SlurmLaunch, without: Sequence[str]) -> Iterator[str]:
    """What a job of the run asks for."""
    plan = run.plan
    yield f"--nodes={plan.nodes}"
    yield "--ntasks-per-node=1"
    if plan.cores is not None:
        yield f"--cpus-per-task={plan.cores}"
    yield "--open-mode=append"
    yield "--requeue"
    yield f"--signal=B:USR1@{launch.stop_before_s}"
    if launch.time_limit is not None:
        yield f"--time={launch.time_limit}"
    for name in ("partition", "account", "qos"):
        if value := getattr(launch, name):
            yield f"--{name}={value}"
    asked = [option.partition("=")[2] for option in launch.options if option.startswith("--exclude=")]
    yield from (option for option in launch.options if not option.startswith("--exclude="))
    if machines := [*asked, *without]:  # sbatch takes the last --exclude alone
        yield f"--exclude={','.join(machines)}"
