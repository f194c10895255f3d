"""What images and network must be like for weights: read from the weights, compared with the configuration.

Weights under another normalisation, channel order or crop compute plausible nonsense: a run takes these from its
weights, and says so where a person chose otherwise.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

from safetensors import safe_open

from mvit.config import CheckpointConfig, Init, ModelConfig, PredictTask, RunConfig, Task, TrainRun, WeightsInit
from mvit.errors import Problem
from mvit.models import spec
from mvit.rundir.checkpoints import checkpoint_file
from mvit.rundir.exported import ABOUT, exported_form, read_about
from mvit.rundir.sidecar import sidecar_of

OF_DATA = ("mean", "std", "channel_order", "eval_crop_fraction", "interpolation", "antialias")
OF_DATA_TO_START = ("mean", "std", "channel_order")
OF_MODEL = ("layer_norm_eps", "token_projection")


def conventions_of(path: Path) -> dict[str, Any]:
    """Conventions of a run folder's best checkpoint, of a checkpoint, or of imported weights; empty if unknown."""
    if exported_form(path):
        return _conventions_of_exported(path)
    from mvit.models.weights import WeightsError, load_metadata  # NumPy and safetensors, for this task alone

    try:
        path = checkpoint_file(path) or path
        sidecar = sidecar_of(path)
        return sidecar.conventions.model_dump(mode="json") if sidecar else load_metadata(path)
    except (OSError, ValueError, KeyError, TypeError, WeightsError):
        return {}  # nothing is known; a file that cannot be read is refused by `fits_network`


def _conventions_of_exported(path: Path) -> dict[str, Any]:
    """From the model.json beside it; mean, std and the order of channels are within the network."""
    try:
        about = read_about(path.parent)
    except (OSError, ValueError):
        return {}  # which the rules of exported networks refuse
    conventions = about.input.model_dump(include={"eval_crop_fraction", "interpolation", "antialias"})
    return {
        **conventions,
        "model": about.model,
        "image_size": about.input.size,
        "num_classes": len(about.class_names),
    }


def differences(config: RunConfig) -> Iterator[str]:
    """Where the configuration differs from what the weights to evaluate, or to start from, were trained with."""
    starts = isinstance(config, TrainRun)
    trained_with = _conventions(config.init if starts else config.task)
    names = OF_DATA_TO_START if starts else OF_DATA  # a new recipe may crop and resize as it likes
    for where, fields, section in (("data", names, config.data), ("model", OF_MODEL, config.model)):
        for name in fields:
            ours, theirs = getattr(section, name), trained_with.get(name)
            if theirs is not None and not _same(ours, theirs):
                yield f"{where}.{name}={_typed(ours)}, the weights were trained with {_typed(theirs)}"


def same_classes(task: Task, *, num_classes: int) -> Iterator[Problem]:
    """Where the data, or the names of classes, are of another number of classes than the weights of a task."""
    if not isinstance(task, CheckpointConfig):
        return
    classes = classes_of(Path(task.checkpoint))
    if classes in (None, num_classes):
        return
    if isinstance(task, PredictTask):
        rule = f"has {num_classes} names, the checkpoint has {classes} classes"
        yield Problem("data.class_names", None, rule, "name each of them, or leave it out")
    else:
        rule = f"has {classes} classes, the data has {num_classes}"
        yield Problem("task.checkpoint", task.checkpoint, rule, "choose the data it was trained on")


def classes_of(path: Path) -> int | None:
    """Number of classes of a checkpoint or a run's best one; None if unknown."""
    file = checkpoint_file(path)
    shapes = (_shapes(file) if file else None) or {}
    return shapes["head.bias"][0] if "head.bias" in shapes else conventions_of(path).get("num_classes")


def fits_network(key: str, section: Task | Init, model: ModelConfig) -> Iterator[Problem]:
    """Where a file cannot be read, or lacks the weights that were chosen, or holds those of another network.

    A head of other classes is made new where training starts from it.
    """
    if not isinstance(section, CheckpointConfig) or not Path(section.checkpoint).exists():
        return
    if exported_form(Path(section.checkpoint)):
        return  # which has rules of its own
    path, where = checkpoint_file(Path(section.checkpoint)), f"{key}.checkpoint"
    if path is None or not path.exists():
        remedy = "name a run that has evaluated once, or a .safetensors file"
        folder = Path(section.checkpoint)
        if exported := next((one for one in (folder, folder / "exported") if (one / ABOUT).is_file()), None):
            remedy = f"name a file of {exported}"
        yield Problem(where, section.checkpoint, "is not a run folder with a best checkpoint", remedy)
        return
    shapes = _shapes(path)
    if shapes is None:
        yield Problem(where, section.checkpoint, "cannot be read: torn, or not a .safetensors file", "name another one")
        return
    if section.weights == "ema" and not any(name.startswith("ema.") for name in shapes):
        yield Problem(f"{key}.weights", "ema", f"is not in {section.checkpoint}", f"use {key}.weights=raw")
    expected = spec.parameter_shapes(model, num_classes=shapes.get("head.bias", (1,))[0])
    wrong = [name for name, shape in expected.items() if shapes.get(name) != shape]
    if wrong:
        rule = f"is of another network than model={model.name}: {wrong[0]}"
        rule += f" has shape {shapes[wrong[0]]}, not {expected[wrong[0]]}" if wrong[0] in shapes else " is missing"
        yield Problem(where, section.checkpoint, rule, "choose the model that it was trained with")


def starts_from(init: WeightsInit, *, num_classes: int) -> str:
    """Where the weights come from, and whether the head is new, in words."""
    path = checkpoint_file(Path(init.checkpoint))
    classes = ((_shapes(path) if path else None) or {}).get("head.bias", (num_classes,))[0]
    kept = "" if classes == num_classes else f", new head ({classes} classes there, {num_classes} here)"
    return f"{init.checkpoint}{kept}"


def _conventions(section: Task | Init) -> dict[str, Any]:
    if not isinstance(section, CheckpointConfig) or not Path(section.checkpoint).exists():
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


def _typed(value: Any) -> str:
    """As it is typed on the command line."""
    return str(list(cast(Sequence[Any], value))).replace(" ", "") if isinstance(value, (list, tuple)) else str(value)
