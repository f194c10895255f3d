"""What images and network must be like for given weights: read from the weights, held against the configuration.

Weights under another normalisation, channel order or crop compute plausible nonsense; so they are refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

from mvit.check import Problem
from mvit.config import Data, ModelConfig, Task
from mvit.rundir import read_json

OF_DATA = ("mean", "std", "channel_order", "eval_crop_fraction")
OF_MODEL = ("layer_norm_eps", "token_projection")


def conventions_of(path: Path) -> dict[str, Any]:
    """Conventions of a run folder's best checkpoint, of a checkpoint, or of imported weights; empty if unknown."""
    from mvit.models.weights import WeightsError, load_metadata  # NumPy and safetensors, for this task alone

    try:
        if path.is_dir():
            best = path / "checkpoints" / "best.json"
            path = best.with_name(f"{read_json(best)['file']}.safetensors")
        sidecar = path.with_suffix(".json")
        return read_json(sidecar)["conventions"] if sidecar.exists() else load_metadata(path)
    except (OSError, ValueError, KeyError, TypeError, WeightsError):
        return {}  # nothing is known, so nothing is refused here; a file that cannot be read fails when it is loaded


def same_conventions(task: Task, data: Data, model: ModelConfig) -> Iterator[Problem]:
    """Where the configuration differs from what the weights to evaluate were trained with."""
    if task.kind != "evaluate" or not Path(task.checkpoint).exists():
        return
    said = conventions_of(Path(task.checkpoint))
    for section, names, config in (("data", OF_DATA, data), ("model", OF_MODEL, model)):
        for name in names:
            ours, theirs = getattr(config, name), said.get(name)
            if theirs is not None and not _same(ours, theirs):
                key, value = f"{section}.{name}", _written(theirs)
                rule = f"is not what the weights were trained with, {value}"
                yield Problem(key, _written(ours), rule, f"use {key}={value}")


def same_classes(task: Task, *, found: int) -> Iterator[Problem]:
    """Where the data has another number of classes than the weights to evaluate."""
    if task.kind == "evaluate":
        theirs = conventions_of(Path(task.checkpoint)).get("num_classes")
        if theirs not in (None, found):
            rule = f"has {theirs} classes, the data has {found}"
            yield Problem("task.checkpoint", task.checkpoint, rule, "choose the data it was trained on")


def _same(ours: Any, theirs: Any) -> bool:
    if isinstance(ours, tuple):
        pairs = zip(cast(tuple[Any, ...], ours), theirs, strict=True)
        return all(_same(a, b) for a, b in pairs)
    return ours == theirs if isinstance(theirs, str) else abs(ours - theirs) <= 1e-4 * abs(theirs)


def _written(value: Any) -> str:
    """As it is typed on the command line."""
    return str(list(cast(Sequence[Any], value))).replace(" ", "") if isinstance(value, (list, tuple)) else str(value)
