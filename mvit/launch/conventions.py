"""What images and network must be like for given weights: read from the weights, held against the configuration.

Weights under another normalisation, channel order or crop compute plausible nonsense; so they are refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

from safetensors import safe_open

from mvit.check import Problem
from mvit.config import Data, EvaluateTask, Init, ModelConfig, RandomInit, Task, TrainTask, WeightsInit
from mvit.models import spec
from mvit.rundir import read_json

OF_DATA = ("mean", "std", "channel_order", "eval_crop_fraction")
OF_DATA_TO_START = ("mean", "std", "channel_order")
OF_MODEL = ("layer_norm_eps", "token_projection")


def conventions_of(path: Path) -> dict[str, Any]:
    """Conventions of a run folder's best checkpoint, of a checkpoint, or of imported weights; empty if unknown."""
    from mvit.models.weights import WeightsError, load_metadata  # NumPy and safetensors, for this task alone

    try:
        path = _file(path)
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
    theirs = _said(task).get("num_classes")
    if isinstance(task, EvaluateTask) and theirs not in (None, found):
        rule = f"has {theirs} classes, the data has {found}"
        yield Problem("task.checkpoint", task.checkpoint, rule, "choose the data it was trained on")


def fits_network(init: Init, model: ModelConfig) -> Iterator[Problem]:
    """Where the network is another than that of the weights to start from; a head of other classes is made new."""
    if not isinstance(init, WeightsInit) or not Path(init.checkpoint).exists():
        return
    theirs = _shapes(Path(init.checkpoint))
    ours = spec.parameter_shapes(model, num_classes=model.num_classes or 1)
    wrong = [name for name, shape in ours.items() if not name.startswith("head.") and theirs.get(name) != shape]
    if theirs and wrong:
        rule = f"is of another network than model={model.name}: {wrong[0]}"
        rule += f" has shape {theirs[wrong[0]]}, not {ours[wrong[0]]}" if wrong[0] in theirs else " is missing"
        yield Problem("init.checkpoint", init.checkpoint, rule, "choose the model that it was trained with")


def starts_from(init: WeightsInit, *, num_classes: int) -> str:
    """Where the weights come from, and whether the head is new, in words."""
    theirs = _shapes(Path(init.checkpoint)).get("head.bias", (num_classes,))[0]
    kept = "" if theirs == num_classes else f", new head ({theirs} classes there, {num_classes} here)"
    return f"{init.checkpoint}{kept}"


def _said(section: Task | Init) -> dict[str, Any]:
    if isinstance(section, (TrainTask, RandomInit)) or not Path(section.checkpoint).exists():
        return {}
    return conventions_of(Path(section.checkpoint))


def _shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Shapes of a file's tensors by name, from its header alone; empty if it cannot be read."""
    try:
        with cast(Any, safe_open)(_file(path), framework="numpy") as file:  # it carries no types
            return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118 (no dict)
    except Exception:  # noqa: BLE001  safetensors raises its own type; loading will say what is wrong
        return {}


def _file(path: Path) -> Path:
    """The file of a checkpoint: itself, or the best of a run folder."""
    if not path.is_dir():
        return path
    best = path / "checkpoints" / "best.json"
    return best.with_name(f"{read_json(best)['file']}.safetensors")


def _same(ours: Any, theirs: Any) -> bool:
    if isinstance(ours, tuple):
        pairs = zip(cast(tuple[Any, ...], ours), theirs, strict=True)
        return all(_same(a, b) for a, b in pairs)
    return ours == theirs if isinstance(theirs, str) else abs(ours - theirs) <= 1e-4 * abs(theirs)


def _written(value: Any) -> str:
    """As it is typed on the command line."""
    return str(list(cast(Sequence[Any], value))).replace(" ", "") if isinstance(value, (list, tuple)) else str(value)
