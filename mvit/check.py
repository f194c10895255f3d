"""Whether a configuration is legal: every problem, one line each.

ConfigError         the request is wrong: one line for each `Problem`, exit code 2
"""

from __future__ import annotations

import difflib
import fnmatch
import re
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Annotated, Any, cast, get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from mvit.config import (
    AscendTopology,
    AugmentConfig,
    CpuTopology,
    Frozen,
    ImagesConfig,
    Init,
    MlflowTracking,
    ModelConfig,
    NoTracking,
    Optimizer,
    Precision,
    RunConfig,
    Schedule,
    Task,
    TrainConfig,
    kind_of,
    variants,
    world_size,
)
from mvit.credentials import hidden
from mvit.models.spec import STATISTICS, parameter_shapes
from mvit.schedule import scaled_lr

MAX_SHOWN = 300
"""Characters of a wrong value that are repeated: a path fits."""


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with a request."""

    path: str
    value: Any
    rule: str
    remedy: str

    def __str__(self) -> str:
        value = "" if self.value is None else f"{_short(self.value)} "
        return hidden(f"{self.path}: {value}{self.rule}; {self.remedy}")


class ConfigError(Exception):
    """The request is wrong; `problems` lists everything found."""

    def __init__(self, *problems: Problem) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = problems


def parse(raw: Mapping[str, Any]) -> RunConfig:
    """The typed configuration; raises `ConfigError` with every problem found."""
    _, problems = check(raw)
    if problems:
        raise ConfigError(*problems)
    return RunConfig.model_validate(dict(raw))


def check(raw: Mapping[str, Any]) -> tuple[dict[str, Any], list[Problem]]:
    """Sections that are valid by themselves, and the problems found in fields and between sections.

    Sections are judged one by one, so that a mistake in one does not hide another's.
    """
    raw = _given(raw)
    sections: dict[str, Any] = {}
    fields = list(RunConfig.model_fields)
    problems = [_unknown(key, fields) for key in raw if key not in fields]
    hints = get_type_hints(RunConfig, include_extras=True)
    for name, field in RunConfig.model_fields.items():
        if name not in raw:
            problems.append(Problem(name, None, "is missing", "take it from conf/config.yaml"))
            continue
        annotation = hints[name]
        adapter = TypeAdapter[Any](annotation) if variants(annotation) else _plain(annotation, field)
        try:
            sections[name] = adapter.validate_python(raw[name])
        except ValidationError as error:
            # A list that is too short is an error for each place it lacks, and one problem.
            found = (_translate(name, annotation, item) for item in error.errors())
            problems += {str(problem): problem for problem in found}.values()
            if all(item["type"] == "extra_forbidden" for item in error.errors()):
                # Unknown keys aside, the section is legal: let the rules see it too.
                extra = [_place(variants(annotation), list(item["loc"]))[0] for item in error.errors()]
                sections[name] = adapter.validate_python(_without(raw[name], extra))
    return sections, problems + list(judge(RULES, sections))


def _given(value: Any) -> Any:
    """A copy without what OmegaConf marks as still to be given."""
    if not isinstance(value, Mapping):
        return value
    pairs = cast(Mapping[str, Any], value).items()
    return {key: _given(inner) for key, inner in pairs if inner != "???"}


def _without(section: Mapping[str, Any], paths: list[list[Any]]) -> dict[str, Any]:
    """A copy without the keys at `paths`."""
    copy = deepcopy(dict(section))
    for *inner, last in paths:
        place = copy
        for part in inner:
            place = place[part]
        del place[last]
    return copy


def _plain(annotation: Any, field: FieldInfo) -> TypeAdapter[Any]:
    """Judges a field that is no model; strict, as the models are."""
    constrained = cast(Any, Annotated)[annotation, field]  # made at run time: no type to a checker
    return TypeAdapter[Any](constrained, config=ConfigDict(strict=True))


Rule = tuple[tuple[str, ...], Callable[..., Iterator[Problem]]]


def judge(rules: list[Rule], sections: Mapping[str, Any]) -> Iterator[Problem]:
    """Apply the rules whose sections are all valid."""
    for names, rule in rules:
        if all(name in sections for name in names):
            yield from rule(*(sections[name] for name in names))


def _shape(model: ModelConfig) -> Iterator[Problem]:
    for index, features in enumerate(model.features):
        if features % model.heads:
            near = _multiples(features, model.heads)
            rule = f"does not divide into {model.heads} heads"
            yield Problem(f"model.features.{index}", features, rule, f"use {near}")
    for name in ("channels", "conv_blocks", "depths", "features", "hidden"):
        for index, value in enumerate(getattr(model, name)):
            if value < 1:
                yield Problem(f"model.{name}.{index}", value, "is below 1", "use 1 or more")


def _normalisation(data: ImagesConfig) -> Iterator[Problem]:
    for index, value in enumerate(data.std):
        if value <= 0:
            yield Problem(f"data.std.{index}", value, "is not above 0", "use the standard deviation, or 1")


def _ranges(augment: AugmentConfig) -> Iterator[Problem]:
    crop, erasing = augment.crop, augment.erasing
    asked: list[tuple[str, tuple[float, float], float]] = []
    if crop:
        asked += [("crop.scale", crop.scale, 1.0), ("crop.ratio", crop.ratio, 100.0)]
    if erasing:
        asked += [("erasing.scale", erasing.scale, 1.0), ("erasing.ratio", erasing.ratio, 100.0)]
    for name, (low, high), upper in asked:
        if not 0 < low <= high <= upper:
            rule = f"is no range with 0 < low <= high <= {upper:g}"
            yield Problem(f"augment.{name}", [low, high], rule, "use for example [0.5, 1.0]")


def _mix(augment: AugmentConfig) -> Iterator[Problem]:
    mix = augment.mix
    if mix is None:
        return
    if mix.cutmix_share > 0 and mix.cutmix_alpha == 0:
        rule = "asks for cutmix, whose alpha is 0"
        yield Problem("augment.mix.cutmix_share", mix.cutmix_share, rule, "use 0, or set augment.mix.cutmix_alpha=1.0")
    if mix.cutmix_share < 1 and mix.mixup_alpha == 0:
        rule = "asks for mixup, whose alpha is 0"
        yield Problem("augment.mix.cutmix_share", mix.cutmix_share, rule, "use 1, or set augment.mix.mixup_alpha=0.2")


def asked_batches(train: TrainConfig) -> list[tuple[str, int]]:
    """Path and size of every global batch that is trained on."""
    buckets = enumerate(train.buckets)
    asked = [(f"train.buckets.{index}.global_batch_size", bucket.global_batch_size) for index, bucket in buckets]
    return asked or [("train.global_batch_size", train.global_batch_size)]


def _mixed_alone(
    augment: AugmentConfig, train: TrainConfig, topology: CpuTopology | AscendTopology
) -> Iterator[Problem]:
    parts = world_size(topology) * topology.accumulation
    for path, batch in asked_batches(train):
        if augment.mix and batch // parts == 1:
            rule = f"leaves one image to each of {parts} parts, and none to mix it with"
            yield Problem(path, batch, rule, f"use {2 * parts} or more, or augment.mix=null")


def _split(train: TrainConfig, topology: CpuTopology | AscendTopology) -> Iterator[Problem]:
    parts = world_size(topology) * topology.accumulation
    over = f"{world_size(topology)} device{'s' if world_size(topology) > 1 else ''}"
    over += f" x {topology.accumulation} micro-batches" if topology.accumulation > 1 else ""
    for path, batch in asked_batches(train):
        if batch % parts:
            yield Problem(path, batch, f"does not split over {over}", f"use {_multiples(batch, parts)}")


def _buckets(train: TrainConfig) -> Iterator[Problem]:
    sizes = [bucket.image_size for bucket in train.buckets]
    for size in sorted({size for size in sizes if sizes.count(size) > 1}):
        yield Problem("train.buckets", size, "is the image size of two buckets", "give each size one batch")


def _clip(train: TrainConfig) -> Iterator[Problem]:
    if train.clip_norm is not None and train.clip_value is not None:
        yield Problem("train.clip_value", train.clip_value, "stands beside train.clip_norm", "set one of them to null")


def _frozen(train: TrainConfig, model: ModelConfig) -> Iterator[Problem]:
    shapes = parameter_shapes(model, num_classes=model.num_classes or 2)
    names = [name for name in shapes if not name.endswith(STATISTICS)]  # which are not trained anyway
    for pattern in train.freeze:
        if not fnmatch.filter(names, pattern):
            remedy = f"use the pattern of a parameter, as stem.* or {names[-1]}"
            yield Problem("train.freeze", pattern, "matches no parameter", remedy)
    if all(any(fnmatch.fnmatchcase(name, pattern) for pattern in train.freeze) for name in names):
        yield Problem("train.freeze", list(train.freeze), "leaves nothing to train", "leave out head.*")


def _unused_init(init: Init, task: Task) -> Iterator[Problem]:
    if task.kind == "evaluate" and init.kind != "random":
        yield Problem("init", init.kind, "has no effect with task=evaluate", "use task.checkpoint")


def _device_precision(precision: Precision, topology: CpuTopology | AscendTopology) -> Iterator[Problem]:
    if precision.kind == "bf16" and topology.kind == "cpu":
        yield Problem("precision", "bf16", "does not run on a CPU", "use precision=fp32 or an Ascend topology")


def _warmup(schedule: Schedule, train: TrainConfig) -> Iterator[Problem]:
    if schedule.kind == "one_cycle" or schedule.warmup_unit == "steps":
        return
    if schedule.warmup > train.epochs:
        rule = f"is longer than the {train.epochs} epochs of training"
        remedy = f"use {train.epochs} or less, or raise train.epochs"
        yield Problem("schedule.warmup", schedule.warmup, rule, remedy)


def _milestones(schedule: Schedule, train: TrainConfig) -> Iterator[Problem]:
    if schedule.kind != "step":
        return
    found = list(schedule.milestones)
    if found != sorted(set(found)) or not found or found[0] <= 0 or found[-1] >= train.epochs:
        rule = f"are no rising epochs between 0 and {train.epochs}"
        yield Problem("schedule.milestones", found, rule, "use for example [30.0, 60.0] of 90")


def _end_lr(schedule: Schedule, optimizer: Optimizer, train: TrainConfig) -> Iterator[Problem]:
    peak = scaled_lr(optimizer, global_batch_size=train.global_batch_size)
    said = "optimizer.lr" if optimizer.lr_batch_size is None else "optimizer.lr scaled to the global batch,"
    for name in ("final_lr", "warmup_from", "initial_lr"):
        value = getattr(schedule, name, 0.0)
        if value > peak:
            rule = f"is above the peak, {said}{'=' if said.endswith('lr') else ' '}{peak:g}"
            yield Problem(f"schedule.{name}", value, rule, f"use {peak:g} or less")


def _no_password(tracking: MlflowTracking | NoTracking) -> Iterator[Problem]:
    if tracking.kind == "mlflow" and tracking.uri and _SECRET.search(tracking.uri):
        remedy = "put them into MLFLOW_TRACKING_URI or MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
        yield Problem("tracking.uri", "(hidden)", "holds credentials, which would be written to disk", remedy)


_SECRET = re.compile(r"://[^\s]*@|[?&][\w-]*(password|passwd|token|secret|key)=", re.IGNORECASE)

RULES: list[Rule] = [
    (("model",), _shape),
    (("data",), _normalisation),
    (("augment",), _ranges),
    (("augment",), _mix),
    (("augment", "train", "topology"), _mixed_alone),
    (("train", "topology"), _split),
    (("train",), _buckets),
    (("train",), _clip),
    (("train", "model"), _frozen),
    (("init", "task"), _unused_init),
    (("precision", "topology"), _device_precision),
    (("schedule", "train"), _warmup),
    (("schedule", "train"), _milestones),
    (("schedule", "optimizer", "train"), _end_lr),
    (("tracking",), _no_password),
]


def nearest(word: str, words: list[str]) -> str:
    """`did you mean ...?` for the closest word, or the choice there is."""
    found = difflib.get_close_matches(word, words, n=1, cutoff=0.6)
    return f"did you mean {found[0]}?" if found else f"use one of: {', '.join(sorted(words))}"


def _multiples(value: int, parts: int) -> str:
    below, above = value // parts * parts, (value // parts + 1) * parts
    return f"{below} or {above}" if below else f"{above}"


def _short(value: Any) -> str:
    text = hidden(repr(value) if isinstance(value, str) else str(value))  # before a password may be cut in two
    return text if len(text) <= MAX_SHOWN else text[: MAX_SHOWN - 3] + "..."


def _unknown(path: str, siblings: list[str]) -> Problem:
    prefix = path.rpartition(".")[0]
    legal = [f"{prefix}.{name}" if prefix else name for name in siblings if name != "kind"]
    return Problem(path, None, "is no key of the configuration", nearest(path, legal) if legal else "remove it")


def _translate(section: str, annotation: Any, error: Any) -> Problem:
    where, models, siblings = _place(variants(annotation), list(error["loc"]))
    path = ".".join([section, *(str(part) for part in where)])
    value = error["input"]
    meant = _purpose(siblings, where) if siblings else _purpose([RunConfig], [section])
    match error["type"]:
        case "extra_forbidden":
            options = variants(annotation)
            if others := [kind_of(model) for model in options if len(where) == 1 and where[0] in model.model_fields]:
                rule = f"is no key of {section} of kind {kind_of(siblings[0])}"
                return Problem(path, None, rule, f"leave it out, or choose one of kind {', '.join(others)}")
            return _unknown(path, [name for model in siblings for name in model.model_fields])
        case "missing" if where and isinstance(where[-1], int):
            return Problem(path.rpartition(".")[0], value, "has too few values", meant)
        case "missing":
            return Problem(path, None, "has no value", f"set {path}=...")
        case "union_tag_invalid" | "union_tag_not_found":
            found = error["ctx"].get("tag", value)
            rule = f"is no kind of {str(where[-1]) if where else section}"
            return Problem(f"{path}.kind", found, rule, nearest(str(found), [kind_of(model) for model in models]))
        case "model_type" | "model_attributes_type" | "dict_type":
            return Problem(path, value, "is no group of keys", meant)
        case _:
            message = error["msg"][0].lower() + error["msg"][1:]
            value = "null" if value is None else value
            return Problem(path, value, f"is refused: {message}", meant)


def _place(models: list[type[Frozen]], location: list[Any]) -> tuple[list[Any], list[type[Frozen]], list[type[Frozen]]]:
    """The keys of an error's location, the models it leads to, and those whose field its last key is.

    pydantic puts the chosen member of a union into the location, which is no key.
    """
    where: list[Any] = []
    siblings = models
    for part in location:
        chosen = [model for model in models if len(models) > 1 and kind_of(model) == part]
        if chosen:
            models = chosen
            continue
        where.append(part)
        if isinstance(part, str):
            siblings = models
            fields = [model.model_fields[part] for model in models if part in model.model_fields]
            models = [inner for field in fields for inner in variants(field.annotation)]
    return where, models, siblings


def _purpose(models: list[type[Frozen]], where: list[Any]) -> str:
    """What the field is for, as a remedy."""
    names = [part for part in where if isinstance(part, str)]
    for model in models:
        field = model.model_fields.get(names[-1]) if names else None
        if field and field.description:
            return field.description[:1].lower() + field.description[1:].rstrip(".")
    return "see docs/configuration.md"
