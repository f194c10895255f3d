"""What images and network must be like for given weights: read from the weights, held against the configuration.

Weights under another normalisation, channel order or crop compute plausible nonsense; so they are refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

from safetensors import safe_open

from mvit.config import Data, EvaluateTask, Init, ModelConfig, RandomInit, Task, TrainTask, WeightsInit
from mvit.errors import Problem
from mvit.files import read_json
from mvit.models import spec
from mvit.rundir.checkpoints import checkpoint_file

OF_DATA = ("mean", "std", "channel_order", "eval_crop_fraction")
OF_DATA_TO_START = ("mean", "std", "channel_order")
OF_MODEL = ("layer_norm_eps", "token_projection")


def conventions_of(path: Path) -> dict[str, Any]:
    """Conventions of a run folder's best checkpoint, of a checkpoint, or of imported weights; empty if unknown."""
    from mvit.models.weights import WeightsError, load_metadata  # NumPy and safetensors, for this task alone

    try:
        path = checkpoint_file(path) or path
        sidecar = path.with_suffix(".json")
        return read_json(sidecar)["conventions"] if sidecar.exists() else load_metadata(path)
    except (OSError, ValueError, KeyError, TypeError, WeightsError):
        return {}  # nothing is known, so nothing is refused here; a file that cannot be read fails when it is loaded


def same_conventions(key: str, section: Task | Init, data: Data, model: ModelConfig) -> Iterator[Problem]:
    """Where the configuration differs from what the weights to evaluate, or to start from, were trained with."""
    said = _said(section)
    names = OF_DATA if key == "task" else OF_DATA_TO_START  # a new recipe may crop as it likes
    for where, fields, config in (("data", names, data), ("model", OF_MODEL, model)):
        for name in fields:
            ours, theirs = getattr(config, name), said.get(name)
            if theirs is not None and not _same(ours, theirs):
                path, value = f"{where}.{name}", _written(theirs)
                rule = f"is not what the weights were trained with, {value}"
                yield Problem(path, _written(ours), rule, f"use {path}={value}")


def same_classes(task: Task, *, found: int) -> Iterator[Problem]:
    """Where the data has another number of classes than the weights to evaluate."""
    if not isinstance(task, EvaluateTask):
        return
    path = checkpoint_file(Path(task.checkpoint))
    shapes = (_shapes(path) if path else None) or {}
    theirs = shapes["head.bias"][0] if "head.bias" in shapes else _said(task).get("num_classes")
    if theirs not in (None, found):
        rule = f"has {theirs} classes, the data has {found}"
        yield Problem("task.checkpoint", task.checkpoint, rule, "choose the data it was trained on")


def fits_network(key: str, section: Task | Init, model: ModelConfig) -> Iterator[Problem]:
    """Where a file cannot be read, or holds other weights than are asked for, or those of another network.

    A head of other classes is made new where training starts from it.
    """
    if isinstance(section, (TrainTask, RandomInit)) or not Path(section.checkpoint).exists():
        return
    path, given = checkpoint_file(Path(section.checkpoint)), f"{key}.checkpoint"
    if path is None or not path.exists():
        remedy = "name a run that has evaluated once, or a .safetensors file"
        yield Problem(given, section.checkpoint, "is no run folder with a best checkpoint", remedy)
        return
    theirs = _shapes(path)
    if theirs is None:
        yield Problem(given, section.checkpoint, "cannot be read: it is torn, or no .safetensors", "name another one")
        return
    if section.weights == "ema" and not any(name.startswith("ema.") for name in theirs):
        yield Problem(f"{key}.weights", "ema", f"is not in {section.checkpoint}", f"use {key}.weights=raw")
    ours = spec.parameter_shapes(model, num_classes=theirs.get("head.bias", (1,))[0])
    wrong = [name for name, shape in ours.items() if theirs.get(name) != shape]
    if wrong:
        rule = f"is of another network than model={model.name}: {wrong[0]}"
        rule += f" has shape {theirs[wrong[0]]}, not {ours[wrong[0]]}" if wrong[0] in theirs else " is missing"
        yield Problem(given, section.checkpoint, rule, "choose the model that it was trained with")


def starts_from(init: WeightsInit, *, num_classes: int) -> str:
    """Where the weights come from, and whether the head is new, in words."""
    path = checkpoint_file(Path(init.checkpoint))
    theirs = ((_shapes(path) if path else None) or {}).get("head.bias", (num_classes,))[0]
    kept = "" if theirs == num_classes else f", new head ({theirs} classes there, {num_classes} here)"
    return f"{init.checkpoint}{kept}"


def _said(section: Task | Init) -> dict[str, Any]:
    if isinstance(section, (TrainTask, RandomInit)) or not Path(section.checkpoint).exists():
        return {}
    return conventions_of(Path(section.checkpoint))


def _shapes(path: Path) -> dict[str, tuple[int, ...]] | None:
    """Shapes of a file's tensors by name, from its header alone; None if it cannot be read."""
    try:
        with cast(Any, safe_open)(path, framework="numpy") as file:  # it carries no types
            return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118 (no dict)
    except Exception:  # noqa: BLE001  safetensors raises its own type
        return None


def _same(ours: Any, theirs: Any) -> bool:
    if isinstance(ours, tuple):
        pairs = zip(cast(tuple[Any, ...], ours), theirs, strict=True)
        return all(_same(a, b) for a, b in pairs)
    return ours == theirs if isinstance(theirs, str) else abs(ours - theirs) <= 1e-4 * abs(theirs)


def _written(value: Any) -> str:
    """As it is typed on the command line."""
    return str(list(cast(Sequence[Any], value))).replace(" ", "") if isinstance(value, (list, tuple)) else str(value)
