"""The script of a job: a file that a person can read, and submit again."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from mvit.config import SlurmLaunch
from mvit.parent.host import CHECKOUT, Host
from mvit.rundir.frozen import Run

# Slurm tells the batch shell alone (--signal=B:...), and a shell runs its traps between commands: hence `wait`, which a
# signal interrupts, in a loop. Exit code 75 is a run that stopped and can go on (EX_TEMPFAIL).
BODY = """\
again=
tell() { kill -s "$1" "$child" 2> /dev/null; }
trap 'again=yes; tell USR1' USR1   # the time limit is near, or others need the nodes
trap 'again=; tell USR2' USR2      # python -m mvit stop
trap 'tell TERM' TERM

cd {checkout} || exit 1
{command} &
child=$!
while :; do
    wait "$child"
    code=$?
    kill -s 0 "$child" 2> /dev/null || break
done
if [ -n "$again" ] && [ "$code" -eq 75 ]; then
    scontrol requeue "$SLURM_JOB_ID" && exit 0
fi
exit "$code"
"""


def job_script(run: Run, launch: SlurmLaunch, *, host: Host) -> str:
    """What sbatch takes for a run: its options, and what is executed on the first node."""
    words = (host.python, "-m", "mvit", "run", str(run.folder.path))
    command = shlex.join(words)
    if run.plan.nodes > 1:
        rank = ' --node-rank "$SLURM_NODEID"'
        # One launcher per node; if one of them fails, the others are to end by themselves, with a verdict.
        command = f"srun --kill-on-bad-exit=0 bash -c {shlex.quote(f'exec {command}{rank}')}"
    options = "".join(f"#SBATCH {option}\n" for option in _options(run, launch))
    body = BODY.replace("{checkout}", shlex.quote(str(CHECKOUT))).replace("{command}", command)
    return f"#!/bin/bash\n# {run.config.name}: made by mvit; submit it again with: sbatch job.sh\n{options}\n{body}"


def _options(run: Run, launch: SlurmLaunch) -> Iterator[str]:
    plan = run.plan
    yield f"--job-name=mvit-{run.folder.path.name.rpartition('-')[2]}"
    yield f"--nodes={plan.nodes}"
    yield "--ntasks-per-node=1"
    if plan.cores is not None:
        yield f"--cpus-per-task={plan.cores}"
    yield f"--output={shlex.quote(str(run.folder.logs / 'job-%j.log'))}"
    yield "--open-mode=append"
    yield "--requeue"
    yield f"--signal=B:USR1@{launch.stop_before_s}"
    if launch.time_limit is not None:
        yield f"--time={launch.time_limit}"
    for name in ("partition", "account", "qos"):
        if value := getattr(launch, name):
            yield f"--{name}={value}"
    yield from launch.options
