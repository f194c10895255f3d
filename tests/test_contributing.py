"""CONTRIBUTING.md: each of its diffs applies to this checkout, and what it adds runs."""

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import CHECKOUT, TINY

SMALL = ("data.image_size=32", "train.epochs=1", "train.global_batch_size=8", "train.eval_batch_size=8")
FEW = ("data=synthetic", "data.num_train=32", "data.num_val=8", *SMALL)


@dataclass(frozen=True)
class Addition:
    """What a section of the page adds."""

    heading: str
    overrides: tuple[str, ...]
    """Select it."""
    quick: tuple[str, ...]
    """Make the run short."""
    own: frozenset[str]
    """The files in which it is written."""
    also: frozenset[str] = frozenset()
    """Files that learn of it in a few lines."""

    @property
    def diff(self) -> str:
        section = re.split(r"^## ", (CHECKOUT / "CONTRIBUTING.md").read_text(), flags=re.MULTILINE)
        (text,) = (part for part in section if part.startswith(f"{self.heading}\n"))
        (block,) = re.findall(r"^```diff\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
        return block


ADDITIONS = [
    Addition(
        "Add an optimizer",
        ("optimizer=rmsprop",),
        (*TINY, *FEW),
        frozenset({"mvit/config.py", "conf/optimizer/rmsprop.yaml", "mvit/worker/optim.py"}),
    ),
    Addition(
        "Add a dataset",
        ("data=gradients",),
        (*TINY, *SMALL),
        frozenset({"mvit/config.py", "conf/data/gradients.yaml", "mvit/data/gradients.py"}),
        frozenset({"mvit/data/dataset.py"}),
    ),
    Addition("Add a model size", ("model=xxx_small",), FEW, frozenset({"conf/model/xxx_small.yaml"})),
    Addition(
        "Add a task",
        ("task=read",),
        (),
        frozenset({"mvit/config.py", "conf/task/read.yaml", "mvit/worker/read.py"}),
        frozenset({"mvit/worker/main.py", "mvit/rundir/result.py"}),
    ),
]
each = pytest.mark.parametrize("addition", ADDITIONS, ids=lambda addition: addition.heading.split()[-1])


@dataclass(frozen=True)
class Patched:
    """A copy of the checkout with one of the diffs."""

    path: Path

    def call(self, *arguments: str, timeout_s: float = 60) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
        environment.pop("PYTHONPATH", None)
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=self.path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )


@pytest.fixture
def patched(addition: Addition, tmp_path: Path) -> Patched:
    copy = tmp_path / "checkout"
    listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listing, cwd=CHECKOUT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, names.split("\0")):
        if (CHECKOUT / name).is_symlink() or (CHECKOUT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(CHECKOUT / name, copy / name, follow_symlinks=False)
    done = subprocess.run(
        ["git", "apply", "-"], cwd=copy, input=addition.diff, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return Patched(copy)


@each
def test_an_addition_takes_at_most_three_files_of_its_own(addition):
    touched = dict.fromkeys(re.findall(r"^\+\+\+ b/(\S+)$", addition.diff, re.MULTILINE), 0)
    assert set(touched) == addition.own | addition.also
    assert len(addition.own) <= 3
    for part in addition.diff.split("diff --git ")[1:]:
        name = re.findall(r"^\+\+\+ b/(\S+)$", part, re.MULTILINE)[0]
        added = [line for line in part.splitlines() if line.startswith("+") and not line.startswith("+++")]
        touched[name] = len([line for line in added if not re.match(r"\+(from|    \w+,|\)|$)", line)])
    print(touched)
    assert all(touched[name] <= 8 for name in addition.also)


@each
def test_an_addition_is_planned_documented_and_lint_free(addition, patched):
    plan = patched.call("launch.py", *addition.overrides, *addition.quick, "dry_run=true", "tracking=none")
    assert plan.returncode == 0, plan.stderr
    assert "command" in plan.stdout
    group, option = addition.overrides[0].split("=")
    reference = patched.call("-m", "mvit", "docs")
    assert reference.returncode == 0, reference.stderr
    assert re.search(rf"^`{group}=` .*`{option}`", reference.stdout, re.MULTILINE)
    sources = [name for name in addition.own | addition.also if name.endswith(".py")]
    for command in (["check"], ["format", "--check"]):
        lint = patched.call("-m", "ruff", *command, "--no-cache", *(sources or ["mvit"]))
        assert lint.returncode == 0, lint.stdout


@each
@pytest.mark.mindspore
def test_an_addition_runs(addition, patched):
    done = patched.call("launch.py", *addition.overrides, *addition.quick, "tracking=none", timeout_s=280)
    assert done.returncode == 0, done.stderr + done.stdout
    assert "mvit: FINISHED" in done.stdout
    (folder,) = (path.parent for path in (patched.path / "runs").glob("*/*/result.json"))
    run = json.loads((folder / "run.json").read_text())["config"]
    group, option = addition.overrides[0].split("=")
    assert option in (run[group].get("kind"), run[group].get("name"))
    entries = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert any("perf/images_per_s" in entry.get("metrics", {}) for entry in entries)
