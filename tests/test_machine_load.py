"""How much of the machine others use."""

import os
import subprocess
import sys
import time

from mvit.machine_load import busy_s, cpu_s, others_s
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
