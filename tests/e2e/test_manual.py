"""The manual is executed: what its pages tell a reader to type is typed, and has to print what they show.

Each page is read from its first command to its last in a checkout of its own; where it names runs, two have finished
before, as a reader of the quick start has them. Training is cut to a few steps of a shallow network. What a page shows
has to be printed, line by line; `...` stands for what is left out, and every number for any other.
"""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from safetensors.numpy import save_file

from mvit.data.generated import write_image_folder
from mvit.parent.request import command_line
from mvit.parent.request.check import parse
from mvit.process import die_with_parent
from tests import manual
from tests.conftest import CHECKOUT, COMPOSER, raw_config
from tests.manual import Example
from tests.models.test_weights import random_weights, timm

pytestmark = [pytest.mark.mindspore, pytest.mark.mlflow, pytest.mark.long, pytest.mark.timeout(900)]

SHALLOW = ("model.depths=[1,1,1]", "model.conv_blocks=[1,1,1,1,1]")
FEW = ("train.max_steps=4",)
TIMED = ("task.repeats=3", "task.warmup_steps=1")
SMALL = ("data.image_size=64",)
INTERRUPT = "^C"
LONGEST_S = 400.0
SLURM = {
    "sbatch": 'case "$*" in --parsable*) echo 12 ;; *) echo Submitted batch job 13 ;; esac',
    "squeue": "echo 12 PENDING",
}
"""What takes the place of Slurm on its page."""
IDS = re.compile(r"(?<![\w.])[0-9a-f]{4}(?![\w.])")
NUMBERS = re.compile(r"[-+]?\d+(?:[.,:]\d+)*(?:e[-+]?\d+)?")


def quick(arguments: list[str], *, is_stopped: bool) -> list[str]:
    """The overrides that make a launch short, where the page does not set these keys itself."""
    line = command_line.read(arguments)
    if line.shows or {"freeze=true", "sweep.preview=true", "launch=slurm"} & set(arguments):
        return []
    if "task=benchmark" in arguments:
        return [*TIMED]
    if any(one.startswith("task=") for one in arguments):  # which does not train
        return []
    many = line.many or COMPOSER.is_sweep(line.overrides)
    wanted = [*SHALLOW, *(() if is_stopped else FEW), *(() if any("buckets" in one for one in arguments) else SMALL)]
    if many:
        wanted += ["sweep.max_trials=2"] if any("search" in one for one in arguments) else []
    return wanted


@dataclass
class Reader:
    """Someone in a checkout."""

    room: Path
    environment: dict[str, str]
    names: dict[str, str] = field(default_factory=dict)
    """What stands for what on a page."""

    def runs(self) -> list[Path]:
        """Trainings that are not trials, the oldest one first."""
        frozen = self.room.glob("runs/*/*/run.json")
        trainings = (
            path.parent for path in frozen if json.loads(path.read_text())["config"]["task"]["kind"] == "train"
        )
        return sorted(trainings, key=lambda path: path.name)

    def sweeps(self) -> list[Path]:
        return sorted((path.parent for path in self.room.glob("runs/*/*/ledger.jsonl")), key=lambda path: path.name)

    def as_typed(self, text: str) -> str:
        """A text of a page with the reader's own names in it."""
        runs, sweeps = self.runs(), self.sweeps()
        names = {"OTHER": runs[0].name[-4:], "RUN": runs[-1].name[-4:]} if runs else {}
        names |= {"SWEEP": sweeps[-1].name[-4:]} if sweeps else {}
        exported = sorted(self.room.glob("runs/*/*/exported"), key=lambda path: path.parent.name)
        names |= {"EXPORTED": str(exported[-1])} if exported else {}
        for name, value in {**names, **self.names}.items():
            text = re.sub(rf"(?<![\w/]){re.escape(name)}\b", value, text)
        return text

    def words(self, example: Example) -> list[str]:
        """The command as it is executed."""
        command = self.as_typed(example.command)
        if " | " in command or command.startswith("grep "):
            return ["bash", "-c", re.sub(r"\bpython\b", sys.executable, command)]
        words = shlex.split(command)
        program = next((index for index, word in enumerate(words) if word == "python"), None)
        if program is None:
            return words
        variables = [word for word in words[:program] if "=" in word]
        is_launch = words[program + 1] == "launch.py"
        extra: list[str] = []
        if is_launch and example.mark == "planned":
            extra = ["dry_run=true"]
        elif is_launch and "dry_run=true" not in words and not example.is_refused:
            extra = quick(words[program + 2 :], is_stopped=INTERRUPT in example.output)
        return [*(["env", *variables] if variables else []), sys.executable, *words[program + 1 :], *extra]

    def type(self, example: Example) -> tuple[int, list[str]]:
        """Exit code and lines of a command; Ctrl-C is pressed where the page shows it."""
        words = self.words(example)
        if words[0] == "make":
            words = ["make", "-o", ".venv/.installed", *words[1:], f"ARGS={' '.join((*SHALLOW, *FEW, *SMALL))}"]
        with subprocess.Popen(
            words,
            cwd=self.room,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
            preexec_fn=die_with_parent,
        ) as process:
            stopper = threading.Timer(LONGEST_S, os.killpg, (process.pid, signal.SIGKILL))
            stopper.start()
            try:
                lines = list(_until_the_end(process, awaited=pattern_before_interrupt(example)))
                return process.wait(), lines
            finally:
                stopper.cancel()


def _until_the_end(process: subprocess.Popen[str], *, awaited: re.Pattern[str] | None) -> Iterator[str]:
    """What the process prints; Ctrl-C is pressed once it has printed the line that is awaited."""
    assert process.stdout is not None
    for line in process.stdout:
        yield line.rstrip("\n")
        if awaited and awaited.search(normal(line)):
            awaited = None
            yield INTERRUPT
            process.send_signal(signal.SIGINT)


def normal(line: str) -> str:
    """A line with nothing that differs from run to run: ids, numbers, widths of columns."""
    line = NUMBERS.sub("#", IDS.sub("#", re.sub(r"\d{8}-\d{6}-", "", line)))
    return re.sub(r"-{3,}:?|\s+", lambda found: "-" if found[0][0] == "-" else " ", line).strip()


def pattern_of(line: str) -> str:
    """The lines that a shown one stands for."""
    return ".*".join(map(re.escape, map(normal, line.split("...")))) if line.strip() != "..." else ".*"


def pattern_before_interrupt(example: Example) -> re.Pattern[str] | None:
    if INTERRUPT not in example.output:
        return None
    return re.compile(pattern_of(example.output[example.output.index(INTERRUPT) - 1]))


def difference(shown: tuple[str, ...], printed: list[str]) -> str | None:
    """The first line that a page shows and the command did not print there; `...` is any lines."""
    page = "".join(r"(?:.*\n)*?" if line.strip() == "..." else rf"{pattern_of(line)}\n" for line in shown)
    if re.fullmatch(page, "".join(f"{normal(line)}\n" for line in printed)):
        return None
    at = 0
    for line in shown:
        pattern = re.compile(pattern_of(line))
        found = next((index for index in range(at, len(printed)) if pattern.fullmatch(normal(printed[index]))), None)
        if line.strip() != "..." and found is None:
            return line
        at = at if line.strip() == "..." or found is None else found + 1
    return "(other lines between those that are shown, or after them)"


@pytest.fixture(scope="session")
def untrained(tmp_path_factory, empty_store) -> Path:
    """A folder with a checkout in it, and images."""
    home = tmp_path_factory.mktemp("manual")
    room = home / "mvit"
    room.mkdir()
    listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listing, cwd=CHECKOUT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, names.split("\0")):
        if (CHECKOUT / name).is_symlink() or (CHECKOUT / name).is_file():
            (room / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(CHECKOUT / name, room / name, follow_symlinks=False)
    git = ("git", "-c", "user.name=reader", "-c", "user.email=reader@example.org")
    for words in (("init", "-q"), ("add", "-A"), ("commit", "-q", "-m", "as it is")):
        subprocess.run([*git, *words], cwd=room, check=True)
    shutil.copy(empty_store, room / "mlflow.db")
    write_image_folder(home / "images", classes=4, train=1100, val=64, size=(80, 60))
    write_image_folder(home / "flowers", classes=4, train=40, val=16, size=(80, 60))
    shutil.copytree(home / "flowers/val", home / "flowers/test")
    return home


@pytest.fixture(scope="session")
def trained(untrained) -> Path:
    """The same, with two runs that have finished."""
    home = untrained.with_name("trained")
    shutil.copytree(untrained, home, symlinks=True)
    for seed in (1, 2):
        words = [sys.executable, "launch.py", f"seed={seed}", *SHALLOW, *FEW, *SMALL]
        subprocess.run(words, cwd=home / "mvit", env=environment_of(home), check=True, capture_output=True)
        time.sleep(1)  # folders are named by seconds, and the newest one is to be the second
    return home


def environment_of(home: Path) -> dict[str, str]:
    """The environment of a reader: own caches but for the kernels, own store, no colours."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "MVIT_", "PYTEST_"))}
    cache = home / "cache"
    if not cache.exists():
        (cache / "mvit").mkdir(parents=True)
        kernels = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "mvit/kernels"
        if kernels.is_dir():
            shutil.copytree(kernels, cache / "mvit/kernels")
    kept.pop("PYTHONPATH", None)
    return {**kept, "XDG_CACHE_HOME": str(cache), "COLUMNS": "120", "PYTHONDONTWRITEBYTECODE": "1", "NO_COLOR": "1"}


@pytest.fixture
def reader(page, request, tmp_path) -> Reader:
    """Of a page: one who has trained, where it names runs."""
    names_runs = any(re.search(r"\b(RUN|OTHER)\b", one.command) for one in executed(page))
    base: Path = request.getfixturevalue("trained" if names_runs else "untrained")
    room = tmp_path / "mvit"
    shutil.copytree(base / "mvit", room, symlinks=True)
    (room / ".venv").symlink_to(CHECKOUT / ".venv")
    for name in ("photos", "more"):
        (room / name).mkdir()
        for number, path in enumerate(sorted((base / "flowers/test").rglob("*.jpg"))[:8]):
            shutil.copy(path, room / name / f"{number}.jpg")
    (room / ".git/info/exclude").write_text(".venv\nphotos\nmore\n")
    commands = tmp_path / "slurm"
    commands.mkdir()
    for name, script in SLURM.items():
        (commands / name).write_text(f"#!/bin/sh\n{script}\n")
        (commands / name).chmod(0o755)
    environment = environment_of(base)
    environment["PATH"] = f"{commands}:{environment['PATH']}"
    config = parse(raw_config()).model
    save_file(timm(random_weights(config), depths=config.depths), room / "timm_xx_small.safetensors")
    (room / "trials.csv").write_text("optimizer.lr,seed\n1e-3,1\n2e-3,\n")
    names = {
        "/path/to/images": str(base / "images"),
        "/path/to/imagenet": str(base / "images"),
        "/path/to/flowers": str(base / "flowers"),
        "/path/to/photos": str(base / "flowers/train"),
        "/path/to/shards": str(tmp_path / "shards"),
        "/tmp/pictures": str(tmp_path / "pictures"),
        "NAME": "mine",
    }
    return Reader(room, environment, names)


def executed(page: str) -> list[Example]:
    return [example for example in manual.examples(page) if example.mark != "not executed"]


PAGES = list(filter(executed, manual.PAGES))


@pytest.mark.parametrize("page", PAGES)
def test_the_commands_of_a_page_print_what_it_shows(page, reader):
    wrong: list[str] = []
    for example in executed(page):
        began = time.monotonic()
        code, lines = reader.type(example)
        print(f"$ {example.command}\n  [{time.monotonic() - began:.1f} s, exit code {code}]")
        print("\n".join(lines))
        expected = {2} if example.is_refused else {130} if INTERRUPT in example.output else {0}
        if "mvit check" in example.command:  # a few steps break the rules of a speed
            expected = {1}
        shown = tuple(reader.as_typed(line) for line in example.output)
        missing = difference(shown, lines) if shown else None
        if code not in expected:
            wrong.append(f"{example.command}: exit code {code}")
        elif missing:
            wrong.append(f"{example.command}: {missing}")
    assert wrong == []
