"""Machines that a job is not to have again, since runs have failed on them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from mvit import console
from mvit.config import FailureKind, SlurmLaunch
from mvit.rundir.faults import read_faults
from mvit.rundir.paths import RunDir

OF_THE_MACHINE: frozenset[FailureKind] = frozenset(("hang", "comm", "killed"))
"""Failures that a machine may be the cause of."""


def excluded(folders: Iterable[RunDir], launch: SlurmLaunch) -> list[str]:
    """The machines on which these runs failed so as often as `launch.exclude_after` says, in alphabetical order."""
    if launch.exclude_after is None:
        return []
    faults = Counter(
        fault.machine for folder in folders for fault in read_faults(folder) if fault.kind in OF_THE_MACHINE
    )
    return sorted(machine for machine, count in faults.items() if count >= launch.exclude_after)


def tell_excluded(machines: Sequence[str]) -> None:
    """Say which machines a job leaves out."""
    if machines:
        console.say(f"mvit: excluding {', '.join(machines)}: runs failed there repeatedly (launch.exclude_after)")
