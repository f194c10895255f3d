"""What is printed works where the person stands, and runs_dir means the same everywhere."""

import os
import shlex
import subprocess
import sys

import pytest

from mvit.cli import main
from mvit.console import mvit_command, shown
from mvit.rundir.frozen import read_run
from mvit.rundir.paths import RunDir
from mvit.rundir.state import run_status
from tests.conftest import CHECKOUT


@pytest.fixture
def freeze():
    """launch.py in a process of its own, from some directory, that freezes a run and stops; the lines it prints."""

    def call(stand, *overrides):
        command = [sys.executable, str(CHECKOUT / "launch.py"), "freeze=true", "tracking=none", *overrides]
        done = subprocess.run(command, cwd=stand, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    return call


def test_a_relative_runs_dir_is_below_the_checkout_from_every_directory(freeze, tmp_path):
    runs_dir = os.path.relpath(tmp_path / "my runs", CHECKOUT)
    (tmp_path / "elsewhere").mkdir()
    for stand in (CHECKOUT, tmp_path, tmp_path / "elsewhere"):
        last = freeze(stand, f"runs_dir={runs_dir}")[-1]
        folder = stand / last
        assert folder.resolve().is_relative_to(tmp_path / "my runs" / "xx_small-digits")
        assert run_status(RunDir(folder)) == "FROZEN"
    assert len(list((tmp_path / "my runs").glob("*/*/run.json"))) == 3
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_frozen_run_ends_with_the_command_that_executes_it(freeze, tmp_path):
    *_, command, last = freeze(tmp_path, f"runs_dir={tmp_path}/my runs")
    assert last.startswith("my runs/xx_small-digits/")
    assert command == f"mvit: frozen; execute it with: python -m mvit run '{last}'"
    assert read_run(RunDir(tmp_path / last)).config.name == "xx_small-digits"


def test_a_frozen_sweep_ends_with_the_command_that_executes_it(freeze, tmp_path):
    *_, command, last = freeze(tmp_path, f"runs_dir={tmp_path}/my runs", "-m", "seed=1,2")
    assert command == f"mvit: frozen; execute them with: python -m mvit resume '{last}'"
    assert (tmp_path / last / "ledger.jsonl").exists()


def test_paths_are_relative_below_the_working_directory_and_absolute_elsewhere(monkeypatch, tmp_path):
    (tmp_path / "a b").mkdir()
    monkeypatch.chdir(tmp_path)
    assert shown(tmp_path / "a b") == "a b"
    assert shown(tmp_path / "x" / ".." / "a b") == "a b"
    assert shown(tmp_path.parent) == str(tmp_path.parent)
    assert mvit_command("resume", tmp_path / "a b") == "python -m mvit resume 'a b'"
    monkeypatch.chdir(tmp_path / "a b")
    assert shown(tmp_path / "a b") == "."
    assert shown(tmp_path) == str(tmp_path)


@pytest.mark.parametrize("words", [["run"], ["resume"], ["resume", "--fork"], ["sync"]])
def test_a_name_that_nobody_has_is_one_line_of_every_command(capsys, words):
    assert main.main([*words, "no-such-run"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("mvit: no run or sweep is called 'no-such-run'; ")
    assert err.count("\n") == 1


def test_commands_take_a_run_by_its_short_id(monkeypatch, freeze, tmp_path, capsys):
    last = freeze(tmp_path, f"runs_dir={tmp_path}/runs")[-1]
    monkeypatch.setattr("mvit.parent.locate.RUNS", tmp_path / "runs")
    assert main.main(["resume", last.rpartition("-")[2], "--fork"]) == 2
    assert "has no checkpoint" in capsys.readouterr().err


def test_generated_images_name_the_command_that_trains_on_them(monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    assert main.main(["synthetic", "my images", "--size", "40x30"]) == 0
    command = capsys.readouterr().out.splitlines()[-1].removeprefix("train on it with: ")
    program, script, *overrides = shlex.split(command)
    assert (program, script) == ("python", str(CHECKOUT / "launch.py"))
    dry = [sys.executable, script, *overrides, "dry_run=true"]
    done = subprocess.run(dry, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
