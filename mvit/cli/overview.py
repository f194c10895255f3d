"""The overview that `python launch.py --help` prints: what it is, the commands that people need, what can be chosen."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path

CONF = Path(__file__).resolve().parents[2] / "conf"
NOT_OF_A_RUN = frozenset(("dashboard",))
"""Groups of conf/ that no run chooses."""
WIDTH = 80
HEAD = """\
Train MobileViT on MindSpore, as one run or as many, from configuration.

usage: python launch.py [group=option ...] [key=value ...]

  python launch.py                              train on handwritten digits
  python launch.py model=x_small seed=2         another model, another seed
  python launch.py topology=cpu_2 dry_run=true  print the plan and stop
  python launch.py -m optimizer.lr=1e-3,2e-3    a sweep: a run for each value
  python launch.py experiment=seeds             one that experiments/ describes
  python launch.py task=evaluate task.checkpoint=RUN
  python -m mvit ls                             list the runs, each with its id
  python -m mvit resume RUN                     continue what was stopped
  python -m mvit table                          compare the results
  python -m mvit ui                             show the runs in MLflow

groups:
"""
FOOT = """
more:
  python launch.py --cfg job [...]     print every key with its value;
                                       docs/configuration.md explains them
  python -m mvit --help                every command for runs
  python -m mvit completion --install  complete all of this with Tab
"""


def is_asked(words: Sequence[str]) -> bool:
    """Whether the words after launch.py ask for it; Hydra's flags may be abbreviated."""
    return any(word == "-h" or (word.startswith("--he") and "--help".startswith(word)) for word in words)


def overview() -> str:
    """All of it, in `WIDTH` columns; loads nothing of the configuration."""
    return HEAD + "\n".join(_groups()) + "\n" + FOOT


def _groups() -> Iterator[str]:
    chosen = {group: options for group in groups() if len(options := options_of(group)) > 1}
    column = max(map(len, chosen)) + 4
    for group, options in chosen.items():
        head = f"  {group}".ljust(column)
        yield textwrap.fill(
            ", ".join(options),
            WIDTH,
            initial_indent=head,
            subsequent_indent=" " * column,
            break_on_hyphens=False,
            break_long_words=False,
        )


def groups() -> list[str]:
    """The groups of conf/ that a run, or a sweep, chooses an option of."""
    return sorted(
        group
        for folder in [CONF, CONF / "sweep"]
        for entry in os.scandir(folder)
        if entry.is_dir() and (group := os.path.relpath(entry.path, CONF)) not in NOT_OF_A_RUN
    )


def options_of(group: str, folders: Sequence[Path] = (CONF,)) -> list[str]:
    """The files of a group."""
    return sorted({file.stem for folder in folders for file in (folder / group).glob("*.yaml")})
