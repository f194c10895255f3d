"""A slot: which cores, cards, port and place among nodes one execution of a run uses."""

from __future__ import annotations

import os
import random
import re
from collections.abc import Callable
from dataclasses import dataclass, replace

from mvit.errors import ConfigError, Problem
from mvit.models.kernels.build import this_cpu
from mvit.parent.host import LOOPBACK
from mvit.parent.nodes.address import master_address
from mvit.plan import LaunchPlan
from mvit.rundir.nodes import LEADER

_RANGE = re.compile(r"(\d+)(?:-(\d+))?")


@dataclass(frozen=True)
class Slot:
    """Decided at execution. What numerics depend on, the number of workers and threads, is in the plan."""

    cores: tuple[int, ...] | None = None
    """Cores that the processes are bound to; None leaves the choice to `bound`."""
    cards: tuple[int, ...] | None = None
    """Ascend cards that the processes see; None shows them all."""
    port: int | None = None
    """Port of msrun's scheduler, tried first; None draws a free one."""
    node_rank: int = 0
    master_addr: str = LOOPBACK
    """Where msrun's scheduler listens, on node 0."""

    def bind(self) -> Callable[[], None] | None:
        """What a child calls before it becomes the command; None if there is nothing to bind."""
        cores = self.cores
        return None if cores is None else lambda: os.sched_setaffinity(0, cores)

    def environment(self) -> dict[str, str]:
        """Variables that the processes of the slot get."""
        return {} if self.cards is None else {"ASCEND_RT_VISIBLE_DEVICES": ",".join(map(str, self.cards))}


def cores_of_this_process() -> tuple[int, ...]:
    """The cores that this process may use."""
    return tuple(sorted(os.sched_getaffinity(0)))


def slot_from_environment() -> Slot:
    """The slot that MVIT_MASTER_PORT describes; raises `ConfigError`."""
    port = _number("MVIT_MASTER_PORT")
    if port and not 1024 <= port <= 65535:
        raise ConfigError(Problem("MVIT_MASTER_PORT", port, "is not a port from 1024 to 65535", "change or unset it"))
    return Slot(port=port or None)


def parse_slot(text: str, base: Slot) -> Slot:
    """`base` with what `text` says, as `cores=0-3`, `cards=0,2` or `cores=0,1:port=21000`; raises `ConfigError`."""
    for part in text.split(":"):
        key, _, value = part.partition("=")
        match key:
            case "cores":
                base = replace(base, cores=_numbers(value))
            case "cards":
                base = replace(base, cards=_numbers(value))
            case "port":
                (port,) = _numbers(value) if value.isdecimal() else (0,)
                if not 1024 <= port <= 65535:
                    raise _wrong(text, f"{value!r} is not a port from 1024 to 65535")
                base = replace(base, port=port)
            case _:
                raise _wrong(text, f"{key!r} is not one of cores, cards, port")
    return base


def _numbers(value: str) -> tuple[int, ...]:
    """`0-2,5` as (0, 1, 2, 5)."""
    numbers: list[int] = []
    for part in value.split(","):
        match = _RANGE.fullmatch(part)
        if match is None:
            raise _wrong(value, f"{part!r} is not a number or a range")
        first, last = int(match[1]), int(match[2] or match[1])
        if not 0 <= last - first <= 4096:
            raise _wrong(value, f"{part!r} is not a range of at most 4096")
        numbers += range(first, last + 1)
    if not numbers or len(set(numbers)) < len(numbers):
        raise _wrong(value, "numbers must be distinct")
    return tuple(numbers)


def _wrong(text: str, rule: str) -> ConfigError:
    return ConfigError(Problem("--slot", text, f"is invalid: {rule}", "use for example cores=0-3, or cards=0,1"))


def _number(variable: str) -> int:
    text = os.environ.get(variable) or "0"
    if not text.isdecimal():
        raise ConfigError(Problem(variable, text, "is not a number", f"set {variable} to a non-negative integer"))
    return int(text)


def must_fit(slot: Slot, plan: LaunchPlan, *, option: str = "--slot") -> None:
    """Raises `ConfigError` where the run cannot be executed in the slot that `option` gave."""
    problems: list[Problem] = []
    local = plan.world_size // plan.nodes
    if not 0 <= slot.node_rank < plan.nodes:
        rule = f"is not a node of {plan.nodes}" if plan.nodes > 1 else "is for a run on several machines"
        remedy = f"count from 0 to {plan.nodes - 1}" if plan.nodes > 1 else "leave it out"
        problems.append(Problem("--node-rank", slot.node_rank, rule, remedy))
    elif plan.nodes > 1 and slot.node_rank == LEADER:
        try:
            master_address()
        except ConfigError as error:
            problems += error.problems
    if slot.cards is not None and (plan.device != "Ascend" or len(slot.cards) != local):
        cards = f"cards={','.join(map(str, slot.cards))}"
        needs = f"{local} Ascend cards on each node" if plan.device == "Ascend" else "no cards"
        problems.append(Problem(option, cards, f"does not fit the run, which needs {needs}", "change the slot"))
    cores = f"cores={','.join(map(str, slot.cores or ()))}"
    if missing := sorted(set(slot.cores or ()) - set(cores_of_this_process())):
        available = ",".join(map(str, cores_of_this_process()))
        rule = f"has core {missing[0]}, which is not available to this process"
        problems.append(Problem(option, cores, rule, f"use some of cores={available}"))
    elif slot.cores is not None and plan.cores is not None and len(slot.cores) != plan.cores:
        rule = f"does not fit the run, which was planned for {plan.cores} cores: its numbers depend on how many"
        problems.append(Problem(option, cores, rule, "change the slot, or freeze with another topology.threads"))
    if plan.kernels.isa and plan.kernels.isa not in this_cpu():
        rule = "is what the run was planned with, and this CPU lacks it"
        remedy = "execute it on a CPU that has it, or start a new run"
        problems.append(Problem("kernels", plan.kernels.isa, rule, remedy))
    if problems:
        raise ConfigError(*problems)


def bound(slot: Slot, plan: LaunchPlan) -> Slot:
    """The slot with as many cores as the plan has, where this process may use more than that.

    oneDNN divides its work by the cores that it sees, so that their number is part of the numerics. They are drawn, as
    others may do the same; a machine that has fewer is left as it is.
    """
    available = cores_of_this_process()
    if slot.cores is not None or plan.cores is None or len(available) <= plan.cores:
        return slot
    return replace(slot, cores=tuple(sorted(random.sample(available, plan.cores))))
