"""The address of node 0."""

import pytest

from mvit.errors import ConfigError
from mvit.parent.nodes import address


@pytest.fixture
def machine(monkeypatch):
    def has(*addresses, default=None, asked=None):
        monkeypatch.setattr(address, "addresses", lambda: list(addresses))
        monkeypatch.setattr(address, "_of_default_route", lambda: default)
        monkeypatch.delenv(address.VARIABLE, raising=False)
        if asked:
            monkeypatch.setenv(address.VARIABLE, asked)

    return has


def refusal():
    with pytest.raises(ConfigError) as refused:
        address.master_address()
    return str(refused.value)


def test_the_only_address_is_taken(machine):
    machine("10.0.0.1")
    assert address.master_address() == "10.0.0.1"


def test_of_several_that_of_the_default_route_is_taken(machine):
    machine("10.0.0.1", "192.168.0.7", default="192.168.0.7")
    assert address.master_address() == "192.168.0.7"


def test_where_none_stands_out_a_person_is_asked(machine):
    machine("10.0.0.1", "192.168.0.7")
    assert refusal() == (
        "MVIT_MASTER_ADDR: is not set, and this machine has 2 addresses: 10.0.0.1, 192.168.0.7; "
        "set MVIT_MASTER_ADDR to the one that the other machines reach"
    )
    machine()
    assert "has no address in a network" in refusal()


def test_what_is_asked_for_must_be_of_this_machine(machine):
    machine("10.0.0.1", "192.168.0.7", asked="192.168.0.7")
    assert address.master_address() == "192.168.0.7"
    machine("10.0.0.1", asked="10.0.0.2")
    assert "'10.0.0.2' is not an address of this machine, which has 10.0.0.1" in refusal()
    machine("10.0.0.1", asked="no such host.invalid")
    assert "is not a host that is known here" in refusal()


def test_the_addresses_of_this_machine_are_found():
    assert all(not one.startswith("127.") for one in address.addresses())
