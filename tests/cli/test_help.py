"""python -m mvit and its help: readable, narrow, and without a heavy import."""

import errno
import os
import re
import subprocess
import sys

import pytest

from mvit import __version__
from mvit.cli import main, overview
from mvit.cli.reported import reported
from tests.conftest import CHECKOUT

NAMES = [command.__name__.rpartition(".")[2] for command in main.COMMANDS]
WORDS = [[], *([name] for name in NAMES if name != "launch")]  # whose help is Hydra's


def help_of(capsys, monkeypatch, *words):
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit) as ended:
        main.main([*words, "--help"])
    assert ended.value.code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("words", WORDS, ids=lambda words: words[0] if words else "mvit")
def test_help_fits_80_columns(capsys, monkeypatch, words):
    text = help_of(capsys, monkeypatch, *words)
    assert max(map(len, text.splitlines())) <= 80
    assert len(text.splitlines()) <= 45
    assert text.startswith(f"usage: {' '.join(['python -m mvit', *words])} [-h]")


def test_help_lists_each_command_on_one_line_in_groups(capsys, monkeypatch):
    text = help_of(capsys, monkeypatch)
    listed = [line.split()[0] for line in text.splitlines() if line.startswith("  ")]
    assert [name for name in listed if not name.startswith("-")] == NAMES
    assert [line[:-1] for line in text.splitlines() if line.endswith(":")] == [*main.GROUPS, "options"]
    assert "`python launch.py`" in text


def test_the_help_of_the_launcher_fits_a_screen_and_lists_what_can_be_chosen():
    text = overview.overview()
    assert max(map(len, text.splitlines())) <= 80
    assert len(text.splitlines()) <= 45
    groups = {group for group in overview.groups() if len(overview.options_of(group)) > 1}
    listed = {
        line.split()[0]
        for line in text.partition("groups:\n")[2].partition("\n\n")[0].splitlines()
        if re.match(r"  \w", line)
    }
    assert groups == listed
    assert groups > {"model", "optimizer", "topology", "experiment", "sweep/pruner"}
    assert "python launch.py --cfg job" in text


@pytest.mark.parametrize("flag", ["--help", "-h", "--hel"])
def test_the_launcher_helps_at_once_whatever_else_is_typed(flag):
    command = [sys.executable, "-X", "importtime", str(CHECKOUT / "launch.py"), "model=huge", flag]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, overview.overview())
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert loaded & {"hydra", "pydantic", "rich", "yaml"} == set()


def test_the_words_of_a_launch_are_left_to_hydra(monkeypatch):
    launched = []
    monkeypatch.setattr(main.launch, "act", lambda words: launched.append(list(words)) or 0)
    assert main.main(["launch", "-m", "seed=1,2", "--help"]) == 0
    assert launched == [["-m", "seed=1,2", "--help"]]


def test_the_version_is_told(capsys):
    with pytest.raises(SystemExit) as ended:
        main.main(["--version"])
    assert (ended.value.code, capsys.readouterr().out) == (0, f"mvit {__version__}\n")


def test_every_file_is_a_command_or_serves_them():
    files = {path.stem for path in (CHECKOUT / "mvit/cli").glob("*.py")}
    assert files == {*NAMES, "__init__", "main", "arguments", "reported", "overview", "hydra_entry"}


def test_the_command_line_is_read_without_a_heavy_import():
    program = (
        "import sys; from mvit.cli.main import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "sys.exit(str({'mindspore', 'mlflow', 'hydra', 'pydantic', 'numpy', 'rich'} & set(sys.modules) or ''))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=CHECKOUT, check=False)
    assert done.stderr.strip() == ""


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["pack", "a", "b", "--shards", "0"], "argument --shards: '0' must be a positive integer"),
        (["pack", "a", "b", "--workers", "-1"], "argument --workers: '-1' must be a positive integer"),
        (["synthetic", "a", "--seed", "x"], "argument --seed: 'x' must be a non-negative integer"),
        (["synthetic", "a", "--size", "500"], "argument --size: '500' must be a size such as 500x375"),
        (["synthetic", "a", "--size", "9x9999"], "argument --size: '9x9999' must be at most 8192 pixels on each side"),
        (["ui", "--port", "65536"], "argument --port: '65536' must be a port from 1 to 65535"),
        (["run", "a", "--colour"], "unrecognized arguments: --colour"),
        (["resume", "a", "--fork", "seed=1", "--colour"], "unrecognized arguments: seed=1 --colour"),
    ],
)
def test_a_wrong_argument_is_named_with_its_rule(capsys, words, line):
    with pytest.raises(SystemExit) as ended:
        main.main(words)
    assert ended.value.code == 2
    assert capsys.readouterr().err.endswith(f"error: {line}\n")


@pytest.mark.parametrize("order", [["a", "--fork", "seed=1", "x=2"], ["--fork", "a", "seed=1", "x=2"]])
def test_overrides_may_follow_an_option(monkeypatch, order):
    parsed = []
    monkeypatch.setattr(main.resume, "act", lambda arguments: parsed.append(arguments) or 0)
    assert main.main(["resume", *order]) == 0
    assert (parsed[0].run, parsed[0].fork, parsed[0].overrides) == ("a", True, ["seed=1", "x=2"])


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_reader_that_goes_away_is_no_error(unbuffered):
    command = f"{sys.executable} -m mvit docs | true; echo ${{PIPESTATUS[0]}}"
    env = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
    done = subprocess.run(["bash", "-c", command], cwd=CHECKOUT, env=env, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("141\n", "")


def test_a_file_that_may_not_be_read_is_one_line(capsys):
    def denied() -> int:
        raise PermissionError(errno.EACCES, "Permission denied", "/data/train")

    assert reported(denied) == 2
    assert capsys.readouterr().err == "mvit: /data/train: Permission denied; check its permissions\n"
