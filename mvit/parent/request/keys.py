"""The keys of a configuration, and which of them was meant by one that does not exist."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any, cast, get_origin

from mvit.config import TASKS, Frozen, kind_of, variants
from mvit.errors import Problem
from mvit.places import CONF
from mvit.program import REFERENCE

SYNONYMS = {
    "arch": "model",
    "bs": "train.global_batch_size",
    "batch_size": "train.global_batch_size",
    "clip": "train.clip_norm",
    "clip_grad": "train.clip_norm",
    "dataset": "data",
    "data_dir": "data.root",
    "data_path": "data.root",
    "device": "topology",
    "ema_decay": "train.ema_momentum",
    "epoch": "train.epochs",
    "grad_accumulation": "train.accumulation",
    "grad_clip": "train.clip_norm",
    "gradient_accumulation_steps": "train.accumulation",
    "img_size": "data.image_size",
    "learning_rate": "optimizer.lr",
    "lr_scheduler": "schedule",
    "max_epochs": "train.epochs",
    "max_lr": "optimizer.lr",
    "num_epochs": "train.epochs",
    "num_workers": "data.workers",
    "opt": "optimizer",
    "output_dir": "runs_dir",
    "pretrained": "init.checkpoint",
    "resolution": "data.image_size",
    "scheduler": "schedule",
    "smoothing": "train.label_smoothing",
    "warmup_epochs": "schedule.warmup",
    "warmup_steps": "schedule.warmup",
    "wd": "optimizer.weight_decay",
}
"""What other programs call them."""


@cache
def keys_of(model: type[Frozen]) -> tuple[str, ...]:
    """Every key below a model, whichever kinds are chosen, sections before what they hold."""
    return tuple(dict.fromkeys(_keys(model, "")))


def _keys(model: type[Frozen], prefix: str) -> Iterator[str]:
    for name, field in model.model_fields.items():
        if name == "kind":
            continue
        yield f"{prefix}{name}"
        if get_origin(field.annotation) is not tuple:  # the models of a list have no keys of their own
            for inner in variants(field.annotation):
                yield from _keys(inner, f"{prefix}{name}.")


def leaves(value: Any, path: str = "") -> Iterator[str]:
    """The paths of the single values below a value that stands at `path`; of an empty group, its own."""
    if not isinstance(value, Mapping) or not value:
        yield path
        return
    for key, inner in cast(Mapping[str, Any], value).items():
        yield from leaves(inner, f"{path}.{key}" if path else str(key))


def meant(path: str, keys: Sequence[str]) -> str | None:
    """The key that was probably meant by one that does not exist."""
    leaf = _leaf(path)
    if same := [key for key in keys if _leaf(key) == leaf and key != path]:
        return max(same, key=lambda key: difflib.SequenceMatcher(None, path, key).ratio())
    if SYNONYMS.get(leaf) in keys:
        return SYNONYMS[leaf]
    section = path.rpartition(".")[0]
    siblings = {_leaf(key): key for key in keys if key.rpartition(".")[0] == section}
    if close := difflib.get_close_matches(leaf, siblings, n=1):
        return siblings[close[0]]
    if not siblings and (close := difflib.get_close_matches(path, keys, n=1)):
        return close[0]
    if close := difflib.get_close_matches(leaf, {_leaf(key): None for key in keys}, n=1, cutoff=0.7):
        return meant(f"{path.removesuffix(leaf)}{close[0]}", keys)
    return None


def _leaf(path: str) -> str:
    return path.rpartition(".")[2]


def unknown(path: str, model: type[Frozen]) -> Problem:
    """The problem of a key that no task has."""
    keys = keys_of(model)
    if key := meant(path, keys):
        return Problem(path, None, "unknown key", f"did you mean {key}?")
    section = path.rpartition(".")[0]
    siblings = [key for key in keys if key.rpartition(".")[0] == section]
    remedy = f"use one of: {', '.join(sorted(siblings))}" if siblings else f"see {REFERENCE}"
    return Problem(path, None, "unknown key", remedy)


def unused(path: str, *, by: str, owners: Iterable[str]) -> Problem:
    """The problem of a key that what was chosen (`task=evaluate`) does not use, but `owners` do."""
    return Problem(path, None, f"not used by {by}", f"remove it, or use {one_of(list(owners))}")


def owners(path: str) -> list[str]:
    """The tasks that use a section or a key, as they are chosen."""
    return [f"task={task}" for task, model in TASKS.items() if path in keys_of(model)]


def options_of_kind(section: str, kind: str) -> list[str]:
    """The options of a group that are of a kind: the one of the same name, or all there are."""
    files = sorted((CONF / section).glob("*.yaml"))
    if (CONF / section / f"{kind}.yaml") in files:
        return [kind]
    options = [file.stem for file in files if re.search(rf"^kind: {re.escape(kind)}$", file.read_text(), re.MULTILINE)]
    return options or [kind]


def nearest(word: str, words: list[str]) -> str:
    """`did you mean ...?` for the closest word, or the choice there is."""
    close = difflib.get_close_matches(word, words, n=1, cutoff=0.6)
    return f"did you mean {close[0]}?" if close else f"use one of: {', '.join(sorted(words))}"


def one_of(words: list[str]) -> str:
    """Words as a choice: `a`, `a or b`, `a, b or c`."""
    return " or ".join(filter(None, (", ".join(words[:-1]), words[-1])))


def _models(section: str) -> list[type[Frozen]]:
    """The models that any task gives a section, each once."""
    fields = [model.model_fields[section] for model in TASKS.values() if section in model.model_fields]
    return list({model: None for field in fields for model in variants(field.annotation)})


def owners_of_key(section: str, key: str, *, chosen: type[Frozen]) -> list[str]:
    """The options of a section, as they are typed, that would use a key which the chosen one does not."""
    others = [model for model in _models(section) if model is not chosen and key in model.model_fields]
    names = [option for model in others for option in options_of_kind(section, kind_of(model))]
    return [f"{section}={names[0]}", *names[1:]] if names else []
