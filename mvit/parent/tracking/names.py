"""What runs are called in MLflow, whose list shows twenty characters of a name: the id, then what was overridden."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from mvit.files import read_mapping
from mvit.parent.report.table import label_of
from mvit.rundir.frozen import NOT_THE_RUN, Run
from mvit.rundir.ledger import SweepRequest
from mvit.rundir.paths import RunDir
from mvit.rundir.sweep import is_sweep, short_id

LONGEST = 20


def name_of_run(run: Run) -> str:
    """`f029 lr=0.001`, or `f029 xx_small-digits` where nothing was overridden; of a trial, `07 lr=0.001`."""
    folder = run.folder.path
    if is_sweep(folder.parent):
        number, _, rest = folder.name.partition("-")
        return _short(number, rest.rpartition("-")[0])
    overrides = _overrides(run.folder)
    keys = [key for text in overrides if (key := _key(text)).partition(".")[0] not in NOT_THE_RUN]
    return _short(short_id(folder), str(label_of(overrides, keys)) or run.config.name)


def name_of_sweep(folder: Path, request: SweepRequest | None) -> str:
    """`608b sweep lr,seed`."""
    axes = [_key(text).rpartition(".")[2] for text in (request.overrides if request else ()) if "(" in text]
    return _short(short_id(folder), f"sweep {','.join(axes)}".strip())


def _overrides(folder: RunDir) -> Sequence[str]:
    """What was typed, as far as provenance.json says."""
    command = (read_mapping(folder.provenance) or {}).get("command")
    try:
        words = shlex.split(command) if isinstance(command, str) else []
    except ValueError:
        return ()
    return [word for word in words if re.match(r"[+~]*[\w./@]+=", word)]


def _key(override: str) -> str:
    return override.partition("=")[0].lstrip("+~")


def _short(number: str, label: str) -> str:
    name = f"{number} {label}"
    return name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}…"
