"""The overview that `python launch.py --help` prints: what it is, the commands that people need, what can be chosen."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path

from mvit.places import CONF
from mvit.program import LAUNCH, MVIT, REFERENCE

NOT_OF_A_RUN = frozenset(("dashboard",))
"""Groups of conf/ that no run chooses."""
WIDTH = 80
EXAMPLES = (
    (LAUNCH, "train on handwritten digits"),
    (f"{LAUNCH} model=x_small seed=2", "another model, another seed"),
    (f"{LAUNCH} topology=cpu_2 dry_run=true", "print the plan and stop"),
    (f"{LAUNCH} -m optimizer.lr=1e-3,2e-3", "a sweep: a run for each value"),
    (f"{LAUNCH} experiment=seeds", "one that experiments/ describes"),
    (f"{LAUNCH} task=evaluate task.checkpoint=RUN", ""),
    (f"{MVIT} ls", "list the runs, each with its id"),
    (f"{MVIT} resume RUN", "continue what was stopped"),
    (f"{MVIT} table", "compare the results"),
    (f"{MVIT} ui", "show the runs in MLflow"),
)
"""What people need, and what it is for."""
MORE = (
    (f"{LAUNCH} --cfg job [...]", "print every key with its value;"),
    ("", f"{REFERENCE} explains them"),
    (f"{MVIT} --help", "every command for runs"),
    (f"{MVIT} completion --install", "complete all of this with Tab"),
)


def is_asked(words: Sequence[str]) -> bool:
    """Whether the words after launch.py ask for it; Hydra's flags may be abbreviated."""
    return any(word == "-h" or (word.startswith("--he") and "--help".startswith(word)) for word in words)


def overview() -> str:
    """All of it, in `WIDTH` columns; loads nothing of the configuration."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    yield "Train MobileViT on MindSpore, as one run or as many, from configuration."
    yield f"\nusage: {LAUNCH} [group=option ...] [key=value ...]\n"
    yield from _columns(EXAMPLES)
    yield "\ngroups:"
    yield from _groups()
    yield "\nmore:"
    yield from _columns(MORE)


def _columns(rows: Sequence[tuple[str, str]]) -> Iterator[str]:
    """Commands, and what each does beside it; a command alone may be longer."""
    width = max(len(command) for command, meaning in rows if meaning)
    for command, meaning in rows:
        yield f"  {command:<{width}}  {meaning}".rstrip()


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
