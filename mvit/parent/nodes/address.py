"""The address under which the other machines of a run reach this one."""

from __future__ import annotations

import fcntl
import os
import socket
import struct
from contextlib import suppress

from mvit.errors import ConfigError, Problem

VARIABLE = "MVIT_MASTER_ADDR"
_SIOCGIFADDR = 0x8915
"""Asks Linux for the IPv4 address of a network interface (netdevice(7))."""


def master_address() -> str:
    """MVIT_MASTER_ADDR, else this machine's one address, else that of its default route; raises `ConfigError`.

    msrun becomes the master where the address is one of its own machine, 127.0.0.1 apart.
    """
    ours = addresses()
    if asked := os.environ.get(VARIABLE):
        return _resolved(asked, ours)
    found = ours if len(ours) == 1 else [address for address in ours if address == _of_default_route()]
    if not found:
        many = f"is not set, and this machine has {len(ours)} addresses: {', '.join(ours)}"
        rule = many if ours else "is not set, and this machine has no address in a network"
        raise ConfigError(Problem(VARIABLE, None, rule, f"set {VARIABLE} to the one that the other machines reach"))
    return found[0]


def _resolved(name: str, ours: list[str]) -> str:
    try:
        address = socket.gethostbyname(name)
    except (OSError, UnicodeError):
        raise ConfigError(Problem(VARIABLE, name, "is not a host that is known here", "use an address")) from None
    if address not in ours:
        rule = f"is not an address of this machine, which has {', '.join(ours) or 'none in a network'}"
        raise ConfigError(Problem(VARIABLE, name, rule, "execute the run on the machine that it names, or change it"))
    return address


def addresses() -> list[str]:
    """The IPv4 addresses of this machine, but for the loopback's."""
    found: list[str] = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _, name in socket.if_nameindex():
            with suppress(OSError):  # an interface without an address
                answer = fcntl.ioctl(probe.fileno(), _SIOCGIFADDR, struct.pack("256s", name.encode()[:15]))
                found.append(socket.inet_ntoa(answer[20:24]))
    return sorted({address for address in found if not address.startswith("127.")})


def _of_default_route() -> str | None:
    """The address that this machine would send from; a UDP socket that is connected sends nothing."""
    with suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))  # kept for documentation (RFC 5737): nobody has it
        return str(probe.getsockname()[0])
    return None
