"""Facts about this machine."""

from __future__ import annotations

import os
import secrets
import socket
import sys
from dataclasses import dataclass
from pathlib import Path

from mvit.errors import ConfigError, Problem

CHECKOUT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Host:
    """What the plan needs to know about this machine."""

    python: str
    path: str
    pythonpath: str
    cpu_count: int
    ascend_cards: int
    port: int
    """For msrun's scheduler: tried first, where somebody listens on it another one is taken."""
    node_rank: int
    master_addr: str


def this_host() -> Host:
    """Facts about this machine and its place among several (MVIT_NODE_RANK, MVIT_MASTER_ADDR)."""
    return Host(
        python=sys.executable,
        path=os.environ.get("PATH", os.defpath),
        pythonpath=os.environ.get("PYTHONPATH", ""),
        cpu_count=len(os.sched_getaffinity(0)),
        ascend_cards=sum(path.name.removeprefix("davinci").isdigit() for path in Path("/dev").glob("davinci*")),
        port=_number("MVIT_MASTER_PORT") or free_port(),
        node_rank=_number("MVIT_NODE_RANK"),
        master_addr=os.environ.get("MVIT_MASTER_ADDR", "127.0.0.1"),
    )


def _number(variable: str) -> int:
    text = os.environ.get(variable) or "0"
    if not text.isdecimal():
        raise ConfigError(Problem(variable, text, "is no number", f"set {variable} to a whole number from 0"))
    return int(text)


def free_port() -> int:
    """A free port from 20000 up: CPU workers themselves listen from 8118 up. Drawn, as others search too."""
    begin = 20000 + secrets.randbelow(10000)
    for port in range(begin, 60000):
        if is_free(port):
            return port
    raise RuntimeError(f"no free port from {begin} to 60000")


def is_free(port: int) -> bool:
    """Whether nobody listens on the port, at this moment."""
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True
