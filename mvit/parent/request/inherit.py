"""What a run takes from the weights that it evaluates or starts from: network, data and the conventions of its images.

Defaults of conf/ give way to it; what a person chose, or an experiment, does not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from mvit.config import ExportRun, TrainRun
from mvit.errors import RunDirError
from mvit.parent.locate import UnknownRun, locate
from mvit.parent.request.weight_rules import OF_DATA, OF_DATA_TO_START, OF_MODEL, classes_of, conventions_of
from mvit.places import PROJECT
from mvit.rundir.checkpoints import TENSORS, run_of
from mvit.rundir.exported import exported_form
from mvit.rundir.frozen import read_run

Section = dict[str, Any]


@dataclass(frozen=True)
class Explicit:
    """What was chosen rather than left to the defaults: groups, and single values by their path."""

    groups: frozenset[str]
    values: frozenset[str]

    def under(self, section: str) -> list[list[str]]:
        """The keys below a section that were set, each as the way to it."""
        return [path.split(".")[1:] for path in sorted(self.values) if path.startswith(f"{section}.")]


@dataclass(frozen=True)
class Origin:
    """What is known about weights: the sections of the run that made them, or their conventions alone."""

    model: Section | None = None
    data: Section | None = None
    conventions: Section = field(default_factory=dict[str, Any])
    class_names: tuple[str, ...] = ()


def located(name: str, *, runs: Path) -> Path:
    """The file or folder that a person names as a checkpoint; what is neither is left to the rules, which refuse it.

    Raises `RunDirError` for a name that several runs have.
    """
    path = Path(name)
    if path.suffix == TENSORS or path.is_file():
        return path
    try:
        return locate(name, runs=runs)
    except UnknownRun:
        return path


def inherited(
    raw: Mapping[str, Any], explicit: Callable[[], Explicit], *, option: Callable[[str, str], Section | None]
) -> dict[str, Section]:
    """The sections of a composed configuration that its weights change; none where it names no weights.

    `option` gives the values of an option of a group; `explicit` is asked for only where there are weights.
    """
    kind = _text(raw, "task", "kind")
    key = "init" if kind == "train" else "task"
    named = _text(raw, key, "checkpoint")
    if named in (None, "???"):
        return {}
    path = located(named, runs=PROJECT / str(raw["runs_dir"]))
    origin = _origin(path, option)
    chosen = explicit()
    sections = {key: {**raw[key], "checkpoint": str(path)}}
    sections["model"] = _merged("model", raw, origin.model, chosen, conventions=_only(origin.conventions, OF_MODEL))
    if kind == "predict":
        images = _only(origin.conventions, (*OF_DATA, "image_size"))
        names = origin.class_names or map(str, range(classes_of(path) or 0))
        made_of = {**images, "class_names": list(names)}
        sections["data"] = _merged("data", raw, None, chosen, conventions=made_of)
    elif kind != "train":
        images = _only(origin.conventions, (*OF_DATA, "image_size"))
        sections["data"] = _merged("data", raw, origin.data, chosen, conventions=images)
    else:
        if "num_classes" in raw["model"]:
            sections["model"]["num_classes"] = raw["model"]["num_classes"]  # the head is that of the new data
        images = _only(origin.conventions, OF_DATA_TO_START)
        sections["data"] = _merged("data", raw, None, chosen, conventions=images)
    return sections


def _origin(path: Path, option: Callable[[str, str], Section | None]) -> Origin:
    folder = run_of(path)
    try:
        run = read_run(folder)
    except RunDirError:
        if folder.run.is_file():
            raise  # a network that is evaluated under other conventions computes plausible nonsense
        # Weights without their run say themselves what they know.
        conventions = conventions_of(path)
        name = conventions.get("model")
        return Origin(model=option("model", name) if isinstance(name, str) else None, conventions=conventions)
    if exported_form(path) and isinstance(run.config, ExportRun):
        made = run.config.model_dump(mode="json")
        return Origin(made["model"], made["data"], class_names=run.plan.dataset.class_names)
    if not isinstance(run.config, TrainRun):
        return Origin()  # it has no weights, which the rules say
    made = run.config.model_dump(mode="json")
    conventions = {**_only(made["data"], (*OF_DATA, "image_size")), **_only(made["model"], OF_MODEL)}
    return Origin(made["model"], made["data"], conventions, run.plan.dataset.class_names)


def _merged(
    name: str, raw: Mapping[str, Any], made: Section | None, explicit: Explicit, *, conventions: Section
) -> Section:
    """A section of the origin, or of the option that was chosen instead; then conventions; then what was set."""
    ours = cast(Section, raw[name])
    section = deepcopy(ours if made is None or name in explicit.groups else made)
    section.update(conventions)
    for keys in explicit.under(name):
        _copy(ours, section, keys)
    return section


def _copy(ours: Any, section: Any, keys: list[str]) -> None:
    """Set in `section` what stands in `ours` at the end of `keys`."""
    for key in keys[:-1]:
        if not isinstance(ours, Mapping) or key not in ours:
            return
        ours = cast(Mapping[str, Any], ours)[key]
        if not isinstance(section.get(key), dict):
            section[key] = {}
        section = section[key]
    if isinstance(ours, Mapping) and keys[-1] in ours:
        section[keys[-1]] = deepcopy(cast(Mapping[str, Any], ours)[keys[-1]])


def _only(values: Mapping[str, Any], names: Iterable[str]) -> Section:
    return {name: values[name] for name in names if values.get(name) is not None}


def _text(raw: Mapping[str, Any], section: str, key: str) -> str | None:
    value = raw.get(section)
    text = cast(Mapping[str, Any], value).get(key) if isinstance(value, Mapping) else None
    return text if isinstance(text, str) else None
