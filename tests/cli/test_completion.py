"""Completion with Tab: what is offered, in real shells, and at no cost."""

import fcntl
import os
import pty
import select
import shutil
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest

from mvit.cli.complete import runs
from mvit.cli.complete.__main__ import candidates
from mvit.cli.complete.vocabulary import made
from mvit.cli.overview import groups
from mvit.config import TASKS
from mvit.parent.request.command_line import read
from mvit.parent.request.keys import keys_of
from tests.conftest import CHECKOUT, COMPOSER

LAUNCH = ["python", str(CHECKOUT / "launch.py")]
MVIT = ["python", "-m", "mvit"]
PATIENCE_S = 60.0


def offered(*words):
    return [one.word for one in candidates(list(words))]


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ([*LAUNCH, "opt"], ["optimizer=", "optimizer."]),
        ([*LAUNCH, "optimizer="], ["optimizer=adamw", "optimizer=lamb", "optimizer=lion", "optimizer=sgd"]),
        ([*LAUNCH, "optimizer=sgd", "optimizer.n"], ["optimizer.nesterov="]),
        ([*LAUNCH, "optimizer=adamw", "optimizer.n"], []),
        ([*LAUNCH, "optimizer.nesterov="], ["optimizer.nesterov=true", "optimizer.nesterov=false"]),
        ([*LAUNCH, "augment.cr"], ["augment.crop=", "augment.crop."]),
        ([*LAUNCH, "augment.crop="], ["augment.crop=null"]),
        ([*LAUNCH, "augment.policy.k"], ["augment.policy.kind="]),
        ([*LAUNCH, "task=evaluate", "se"], []),
        ([*LAUNCH, "se"], ["seed="]),
        ([*LAUNCH, "-m", "model=small,x_"], ["model=small,x_small"]),
        ([*LAUNCH, "++schedule.begins=at"], ["++schedule.begins=at_start"]),
        ([*LAUNCH, "sweep/pruner=h"], ["sweep/pruner=halving"]),
        ([*LAUNCH, "sweep=search", "sweep.sam"], ["sweep.sampler="]),
        ([*LAUNCH, "data.root=/"], []),
        ([*LAUNCH, "--cfg", "j"], ["job"]),
        ([*LAUNCH, '"optimizer=sg'], ["optimizer=sgd"]),
        (["A=1", "/opt/bin/python3.11", "-u", "-X", "dev", LAUNCH[1], "model=s"], ["model=small"]),
        (["python", "/elsewhere/launch.py", "model=s"], []),
        (["python", "-m", "http.server", "l"], []),
        (["ls", "l"], []),
        (["mvit", "launch", "model=s"], ["model=small"]),
        (["mvit", "l"], ["ls", "launch"]),
        ([*MVIT, "re"], ["resume", "reproduce", "register"]),
        ([*MVIT, "ls", "--f"], ["--format"]),
        ([*MVIT, "ls", "--format", "h"], ["html"]),
        ([*MVIT, "ls", "--format=h"], ["--format=html"]),
        ([*MVIT, "cache", ""], ["ls", "clear"]),
        ([*MVIT, "cache", "ls", ""], []),
        ([*MVIT, "resume", "f029", "--fork", "train.epo"], ["train.epochs="]),
        ([*MVIT, "resume", "f029", "optimizer"], ["optimizer."]),
        ([*MVIT, "pack", "s"], []),
    ],
    ids=lambda value: " ".join(value[1:]) if value else "nothing",
)
def test_what_is_offered_goes_on_with_the_line(words, found):
    assert offered(*words) == found


@pytest.mark.parametrize("task", TASKS)
def test_every_key_and_group_of_a_task_is_known_and_no_other(task):
    known = made()[task]
    own = {key.path for key in known.keys if not key.path.startswith("sweep.")}
    every = keys_of(TASKS[task])
    leaves = {key for key in every if not any(other.startswith(f"{key}.") for other in every)} - {"task"}
    assert leaves <= own
    assert {path for path in own - set(every) if not path.endswith(".kind")} == set()
    assert {group for group in known.groups if not COMPOSER.is_group(group)} == set()
    assert set(known.groups) <= {*groups(), "sweep/pruner"}


def test_the_flags_that_are_offered_exist():
    assert read([flag for flag in offered(*LAUNCH, "-") if flag not in ("--config-dir", "--cfg")]).problems == ()


def test_runs_are_named_by_their_short_ids_the_newest_first_and_trials_last(tmp_path):
    for folder in ("a/20261129-100000-aaaa", "a/20261129-110000-bbbb/07-lr=1-cccc", "b/20261129-120000-dddd"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "run.json").touch()
    (tmp_path / "a/20261129-110000-bbbb/ledger.jsonl").touch()
    (tmp_path / "a/20261129-130000-eeee").mkdir()
    found = [(one.word, one.about) for one in runs.candidates(tmp_path)]
    assert found == [
        ("dddd", "b, 20261129-120000-dddd"),
        ("bbbb", "a, 20261129-110000-bbbb"),
        ("aaaa", "a, 20261129-100000-aaaa"),
        ("07-cccc", "a, 20261129-110000-bbbb"),
    ]


@pytest.mark.parametrize("words", [[*LAUNCH, "train."], [*MVIT, "resume", ""]], ids=["launch", "command"])
def test_completion_loads_nothing_heavy(words):
    offered(*LAUNCH, "train.")  # makes the vocabulary
    program = (
        "import runpy, sys; runpy.run_module('mvit.cli.complete', run_name='__main__')\n"
        "sys.exit(str({'pydantic', 'hydra', 'mlflow', 'numpy', 'rich', 'yaml'} & set(sys.modules) or ''))"
    )
    command = [sys.executable, "-c", program, "fish", *words]
    began = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, cwd=CHECKOUT, check=False)
    print(f"{time.perf_counter() - began:.2f} s")
    assert done.stderr.strip() == ""


def test_a_changed_configuration_is_read_again(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert offered(*LAUNCH, "se") == ["seed="]
    (file,) = tmp_path.rglob("vocabulary.json")
    for content in (file.read_text().replace('"of": [[', '"of": [["/another/config.py", 1, 2], ['), "torn"):
        file.write_text(content)
        assert offered(*LAUNCH, "se") == ["seed="]
        assert "/another/config.py" not in file.read_text()


# --- in real shells

SHELLS = [
    pytest.param(name, marks=pytest.mark.skipif(not shutil.which(name), reason=f"needs {name}: apt-get install {name}"))
    for name in ("bash", "zsh", "fish")
]
STARTS = {
    "bash": """.bashrc
        PS1='READY> '
        python() { printf '%s\\n' "$*" >> log; }
        mvit() { python mvit "$@"; }
    """,
    "zsh": """.zshrc
        PS1='READY> '
        python() { print -r -- "$*" >> log }
        mvit() { python mvit "$@" }
    """,
    "fish": """.config/fish/config.fish
        set -g fish_greeting
        function fish_prompt; printf 'READY> '; end
        # Its own completion asks for the version.
        function python; test "$argv" = -V; or echo "$argv" >> log; end
        function mvit; python mvit $argv; end
    """,
}
"""The file that each reads first, and in it programs that write down what they are called with."""
TYPED = {
    "python launch.py train.epoc\t3 model=small,x_\t": "launch.py train.epochs=3 model=small,x_small",
    "python launch.py data.root=pict\t": "launch.py data.root=pictures",
    "python -m mvit repr\t": "-m mvit reproduce",
    "mvit launch dry_run=t\t": "mvit launch dry_run=true",
    "python -m other opti\t": "-m other opti",
}


class Terminal:
    """A shell that a person types into."""

    def __init__(self, shell: str, home: Path) -> None:
        environment = {
            **{name: os.environ[name] for name in ("PATH", "XDG_CACHE_HOME") if name in os.environ},
            "HOME": str(home),
            "TERM": "xterm",
            "LANG": "C.UTF-8",
            "SHELL": f"/bin/{shell}",
        }
        self.home = home
        install = [sys.executable, "-m", "mvit", "completion", "--install"]
        self.installed, again = (
            subprocess.run(install, env=environment, capture_output=True, text=True, check=True, cwd=home).stdout
            for _ in range(2)
        )
        assert "written" not in again
        self._master, slave = pty.openpty()
        self._process = subprocess.Popen(
            [shell, "-i"],
            env=environment,
            cwd=home,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # the terminal that it controls
        )
        os.close(slave)
        self.screen = ""

    def type(self, *lines: str) -> list[str]:
        """The arguments that a program is called with by each line."""
        log = self.home / "log"
        log.touch()
        self._wait(lambda: "READY> " in self.screen)
        for number, line in enumerate(lines, 1):
            os.write(self._master, f"{line}\r".encode())
            self._wait(lambda number=number: log.read_text().count("\n") >= number)
        return [line.rstrip("/ ") for line in log.read_text().splitlines()]  # zsh takes the last / away again

    def _wait(self, is_there) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not is_there():
            assert time.monotonic() < deadline, self.screen
            if select.select([self._master], [], [], 0.02)[0]:
                self.screen += os.read(self._master, 65536).decode(errors="replace")

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._master)


@pytest.fixture
def home(tmp_path):
    """A home with a checkout's launch.py, and a folder to be named."""
    (tmp_path / "launch.py").symlink_to(CHECKOUT / "launch.py")
    (tmp_path / "pictures").mkdir()
    return tmp_path


@pytest.mark.parametrize("shell", SHELLS)
def test_a_shell_completes_after_one_command(shell, home):
    name, _, start = STARTS[shell].partition("\n")
    (home / name).parent.mkdir(parents=True, exist_ok=True)
    (home / name).write_text(start)
    terminal = Terminal(shell, home)
    try:
        assert terminal.type(*TYPED) == list(TYPED.values())
    finally:
        terminal.close()
    assert f"{shell} completes" in terminal.installed


def test_in_bash_what_completed_python_before_still_does(home):
    name, _, start = STARTS["bash"].partition("\n")
    (home / name).write_text(f"{start}other() {{ COMPREPLY=(another-word); }}\ncomplete -F other python\n")
    terminal = Terminal("bash", home)
    try:
        lines = ("python x.py ano\t", "python launch.py optimizer=sg\t")
        assert terminal.type(*lines) == ["x.py another-word", "launch.py optimizer=sgd"]
    finally:
        terminal.close()


def test_without_a_known_shell_it_has_to_be_named(tmp_path):
    command = [sys.executable, "-m", "mvit", "completion"]
    environment = {**os.environ, "SHELL": "/bin/tcsh", "HOME": str(tmp_path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, cwd=CHECKOUT)
    line = "mvit: SHELL does not name one of bash, zsh, fish; use: python -m mvit completion bash\n"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", line)
