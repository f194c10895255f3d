"""How much of the machine others use."""

import os
import subprocess
import sys
import time

import pytest

from mvit import machine_load
from mvit.machine_load import Usage, busy_s, cpu_s, memory_in_use_mb, others_s
from mvit.process import MARK

BURN = "import time\nend = time.process_time() + 0.5\nwhile time.process_time() < end: pass\ntime.sleep(60)"


def burn(**environment):
    """A process that uses half a second of a core, and waits."""
    process = subprocess.Popen([sys.executable, "-c", BURN], env={**os.environ, **environment})
    deadline = time.monotonic() + 30
    while cpu_s([process.pid]) < 0.5 and time.monotonic() < deadline:
        time.sleep(0.02)
    return process


def own_s():
    """What the launch's own processes have used; the two readings are some milliseconds apart."""
    return busy_s() - others_s()


def test_the_time_of_a_process_is_part_of_the_machines():
    before = busy_s()
    process = burn()
    try:
        assert 0.5 <= cpu_s([process.pid]) <= busy_s() - before + 0.05
    finally:
        process.kill()
        process.wait()
    assert cpu_s([process.pid]) == 0.0


def test_what_belongs_to_the_launch_is_none_of_the_others(monkeypatch):
    monkeypatch.setenv(MARK, "1:2:mine")
    own = burn()
    try:
        mine = cpu_s([own.pid])
        assert own_s() >= mine - 0.1
        other = burn(**{MARK: "1:2:theirs"})
        try:
            assert own_s() < mine + 0.4
        finally:
            other.kill()
            other.wait()
    finally:
        own.kill()
        own.wait()


def test_a_sample_says_what_the_machine_did_since_the_last_one(monkeypatch):
    usage = Usage()
    process = burn()
    try:
        first = usage.sample()
        assert usage.sample() == {}  # it is fresh
        monkeypatch.setattr(machine_load, "SAMPLE_EVERY_S", 0.0)
        time.sleep(0.1)
        assert set(usage.sample()) == set(first)
    finally:
        process.kill()
        process.wait()
    assert 0.0 < first["system/cpu_utilization_percentage"] <= 100.0
    assert first["system/system_memory_usage_megabytes"] > 50.0


@pytest.mark.parametrize(
    ("meminfo", "megabytes"),
    [
        ("MemTotal:   2000000 kB\nMemFree:    100 kB\nMemAvailable:  500000 kB\n", 1536.0),
        ("MemTotal:   2000000 kB\nHugePages_Total:       0\n", 0.0),
        ("", 0.0),
    ],
)
def test_memory_in_use_is_what_is_not_available(meminfo, megabytes):
    assert memory_in_use_mb(meminfo) == megabytes
