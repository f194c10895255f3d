"""Facts about this machine."""

from __future__ import annotations

import os
import secrets
import socket
import sys
from dataclasses import dataclass
from pathlib import Path

from mvit.models.kernels.build import Support, support

LOOPBACK = "127.0.0.1"
DEVICES = Path("/dev")


@dataclass(frozen=True)
class Host:
    """What a plan and its command need to know about a machine."""

    python: str
    path: str
    pythonpath: str
    glibc_tunables: str
    cpu_count: int
    ascend_cards: int
    kernels: Support


def this_host() -> Host:
    """Facts about this machine, as this process may use it."""
    return Host(
        python=sys.executable,
        path=os.environ.get("PATH", os.defpath),
        pythonpath=os.environ.get("PYTHONPATH", ""),
        glibc_tunables=os.environ.get("GLIBC_TUNABLES", ""),
        cpu_count=len(os.sched_getaffinity(0)),
        ascend_cards=len(ascend_devices()),
        kernels=support(),
    )


def ascend_devices() -> list[str]:
    """The Ascend cards of this machine, as its driver names them: davinci0, davinci1 ..."""
    return sorted(path.name for path in DEVICES.glob("davinci*") if path.name.removeprefix("davinci").isdigit())


def free_port(*, address: str = LOOPBACK) -> int:
    """A free port from 20000 up, since CPU workers listen from 8118 up; drawn at random, since others search too."""
    begin = 20000 + secrets.randbelow(10000)
    for port in range(begin, 60000):
        if is_free(port, address=address):
            return port
    raise RuntimeError(f"no free port from {begin} to 60000")


def is_free(port: int, *, address: str = LOOPBACK) -> bool:
    """Whether nobody listens on the port of an address of this machine at this moment."""
    with socket.socket() as probe:
        try:
            probe.bind((address, port))
        except OSError:
            return False
        return True
