"""The slots of a sweep: equal shares of this machine's cores or cards, and which of them are free."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from mvit.config import RunConfig, world_size
from mvit.errors import ConfigError, Problem
from mvit.parent.host import Host
from mvit.parent.slot import Slot, cores_of_this_process, parse_slot
from mvit.plan import LaunchPlan
from mvit.rundir.ledger import SweepRequest
from mvit.sweep_config import SweepConfig


def workers_here(plan: LaunchPlan) -> int:
    """How many workers of a run are on this machine."""
    return plan.world_size // plan.nodes


class Slots:
    """The shares of a sweep. A trial takes one for each of its workers on this machine, or the only one there is.

    Of trials that are jobs of a scheduler, a trial takes one, wherever that will be.
    """

    def __init__(self, shares: Sequence[tuple[int, ...]], *, device: str) -> None:
        self.shares = tuple(shares)
        self.device = device
        self._free = set(range(len(shares)))

    def needed(self, workers: int) -> int:
        """How many slots a trial of so many workers takes."""
        return 1 if len(self.shares) == 1 or self.device == "jobs" else workers

    @property
    def has_free(self) -> bool:
        return bool(self._free)

    def take(self, workers: int) -> tuple[int, ...] | None:
        """The numbers of free slots for a trial; None while too few are free."""
        free = sorted(self._free)[: self.needed(workers)]
        if len(free) < self.needed(workers):
            return None
        self._free -= set(free)
        return tuple(free)

    def give_back(self, taken: Sequence[int]) -> None:
        self._free |= set(taken)

    @property
    def are_shares(self) -> bool:
        """Whether a slot has less than everything."""
        return any(self.shares)

    def host(self, whole: Host, *, workers: int) -> Host:
        """The machine as a trial of so many workers sees it."""
        cores = len(self.shares[0]) * self.needed(workers)
        return replace(whole, cpu_count=cores) if self.device == "cores" else whole

    def example(self, base: Slot, *, workers: int) -> Slot:
        """What a trial of so many workers may use, wherever that will be."""
        text = self.text(range(self.needed(workers)))
        return parse_slot(text, base) if text else base

    def texts(self) -> tuple[str, ...]:
        """Each slot as `python -m mvit run --slot` takes it."""
        return tuple(self.text([number]) for number in range(len(self.shares)))

    def text(self, taken: Sequence[int]) -> str:
        """As `python -m mvit run --slot` takes it; empty for all there is."""
        ids = sorted(one for number in taken for one in self.shares[number])
        return f"{self.device}={','.join(map(str, ids))}" if ids else ""


def slots_of(sweep: SweepConfig, configs: Sequence[RunConfig], host: Host) -> Slots:
    """The slots of a sweep of these runs; raises `ConfigError` where they do not fit this machine or a topology."""
    kinds = {config.topology.kind for config in configs}
    if any(config.launch.kind == "slurm" for config in configs):
        if not isinstance(sweep.slots, int):
            rule = "names cores or cards of this machine, and the trials are jobs of Slurm"
            raise _wrong(sweep, rule, "say how many of them may run at once")
        return Slots([()] * sweep.slots, device="jobs")
    if sweep.slots == 1:
        return Slots([()], device="cores")
    if len(kinds) > 1:
        raise _wrong(sweep, "is for trials of one kind of device, and these have several", "sweep them one by one")
    device = "cores" if kinds == {"cpu"} else "cards"
    there = cores_of_this_process() if device == "cores" else tuple(range(host.ascend_cards))
    shares = _divided(sweep, there, device) if isinstance(sweep.slots, int) else [tuple(one) for one in sweep.slots]
    if missing := sorted({one for share in shares for one in share} - set(there)):
        has = ",".join(map(str, there)) or "none"
        raise _wrong(sweep, f"has {device[:-1]} {missing[0]}, which is not here", f"use some of {device} {has}")
    if any(len({*share}) < len(share) for share in shares) or sum(map(len, shares)) > len({*sum(shares, ())}):
        raise _wrong(sweep, f"names a {device[:-1]} twice", "give each slot its own")
    if len({len(share) for share in shares}) > 1:
        raise _wrong(sweep, "has slots of different sizes, on which numbers would depend", "make them equal")
    slots = Slots(shares, device=device)
    for config in configs:
        workers = world_size(config.topology)
        if config.topology.nodes > 1:
            raise _wrong(sweep, "is for trials on one machine", "use sweep.slots=1")
        if slots.needed(workers) > len(shares):
            rule = f"does not fit a trial of {workers} workers, which takes {slots.needed(workers)} slots"
            raise _wrong(sweep, rule, f"use at least {workers}, or sweep.slots=1")
    return slots


def _divided(sweep: SweepConfig, there: Sequence[int], device: str) -> list[tuple[int, ...]]:
    """So many equal shares, in order: neighbours share caches."""
    assert isinstance(sweep.slots, int)
    size = len(there) // sweep.slots
    if size == 0:
        raise _wrong(sweep, f"is more than the {len(there)} {device} here", f"use at most {max(1, len(there))}")
    return [tuple(there[number * size : (number + 1) * size]) for number in range(sweep.slots)]


def _wrong(sweep: SweepConfig, rule: str, remedy: str) -> ConfigError:
    slots = sweep.slots if isinstance(sweep.slots, int) else [list(share) for share in sweep.slots]
    return ConfigError(Problem("sweep.slots", slots, rule, remedy))


def slots_again(requested: SweepRequest | None) -> Slots:
    """The slots of a sweep that was begun."""
    texts = requested.slots if requested else ()
    again = [parse_slot(text, Slot()) for text in texts if text]
    if not again:
        return Slots([()] * max(1, len(texts)), device="jobs" if len(texts) > 1 else "cores")
    device = "cards" if again[0].cards else "cores"
    return Slots([getattr(slot, device) for slot in again], device=device)
