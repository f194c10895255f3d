"""Parents on other machines, started by what stands for ssh."""

import os
import time

import pytest

from mvit.parent.nodes import remote_shell
from mvit.parent.nodes.remote_shell import RemoteShells
from mvit.rundir.paths import create_run_dir


@pytest.fixture
def folder(tmp_path):
    return create_run_dir(tmp_path / "a run")


@pytest.fixture
def ssh(tmp_path, monkeypatch):
    """Makes `ssh` what a script does."""

    def is_now(script):
        program = tmp_path / "bin" / "ssh"
        program.parent.mkdir(exist_ok=True)
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")

    return is_now


def until(holds):
    deadline = time.monotonic() + 10
    while not (found := holds()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return found


def test_each_node_is_started_once_and_ended_with_the_run(ssh, folder, monkeypatch, tmp_path):
    monkeypatch.setattr(remote_shell, "LEAVE_S", 0.1)
    ssh(f'echo "$@" >> "{tmp_path}/calls"; exec sleep 60')
    began = time.monotonic()
    with RemoteShells(folder, ["a", "b", "c"]) as shells:
        assert shells.start([1, 2]) is None
        assert shells.start([2]) is None
        calls = until(lambda: (lines := (tmp_path / "calls").read_text().splitlines())[1:] and sorted(lines))
    assert time.monotonic() - began < 30
    assert len(calls) == 2
    assert all(f"-m mvit run '{folder.path}' --node-rank " in call for call in calls)
    assert [call.rpartition(" ")[2] for call in calls] == ["1", "2"]
    assert " b cd " in calls[0]


def test_a_shell_that_ends_is_told_with_its_last_words(ssh, folder):
    ssh("echo 'ssh: connect to host b port 22: No route to host' >&2; exit 255")
    with RemoteShells(folder, ["a", "b"]) as shells:
        shells.start([1])
        problem = until(lambda: shells.start([1]))
    assert problem == "node 1: ssh b ended with exit code 255: ssh: connect to host b port 22: No route to host"


def test_a_shell_that_has_ended_is_started_anew_for_another_attempt(ssh, folder, tmp_path):
    ssh(f'echo called >> "{tmp_path}/calls"')
    with RemoteShells(folder, ["a", "b"]) as shells:
        for times in (1, 2):
            assert shells.start([1]) is None
            until(lambda: (tmp_path / "calls").exists() and len((tmp_path / "calls").read_text().split()) == times)  # noqa: B023
            shells._shells[1].wait()
            shells.forget_ended()


def test_a_machine_without_ssh_is_told(folder, monkeypatch):
    monkeypatch.setenv("PATH", "")
    with RemoteShells(folder, ["a", "b"]) as shells:
        assert shells.start([1]) == "node 1: ssh cannot be started (No such file or directory)"
