"""Whether a configuration is legal: every problem, one line each.

ConfigError         the request is wrong: one line for each `Problem`, exit code 2
"""

from __future__ import annotations

import difflib
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
    MlflowTracking,
    ModelConfig,
    NoTracking,
    Optimizer,
    Precision,
    RunConfig,
    Schedule,
    TrainConfig,
    kind_of,
    variants,
    world_size,
)

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
        return f"{self.path}: {value}{self.rule}; {self.remedy}"


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
                extra = [list(item["loc"]) for item in error.errors()]
                sections[name] = adapter.validate_python(
                    _without(raw[name], extra, tagged=len(variants(annotation)) > 1)
                )
    return sections, problems + list(judge(RULES, sections))


def _given(value: Any) -> Any:
    """A copy without what OmegaConf marks as still to be given."""
    if not isinstance(value, Mapping):
        return value
    pairs = cast(Mapping[str, Any], value).items()
    return {key: _given(inner) for key, inner in pairs if inner != "???"}


def _without(section: Mapping[str, Any], paths: list[list[Any]], *, tagged: bool) -> dict[str, Any]:
    """A copy without the keys at `paths`, whose first part is the kind where the section is a union."""
    copy = deepcopy(dict(section))
    for path in paths:
        *inner, last = path[1:] if tagged else path
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
    if augment.crop is None:
        return
    for name, upper in (("scale", 1.0), ("ratio", 100.0)):
        low, high = getattr(augment.crop, name)
        if not 0 < low <= high <= upper:
            rule = f"is no range with 0 < low <= high <= {upper:g}"
            yield Problem(f"augment.crop.{name}", [low, high], rule, "use for example [0.8, 1.0]")


def _split(train: TrainConfig, topology: CpuTopology | AscendTopology) -> Iterator[Problem]:
    parts = world_size(topology) * topology.accumulation
    if train.global_batch_size % parts:
        over = f"{world_size(topology)} device{'s' if world_size(topology) > 1 else ''}"
        over += f" x {topology.accumulation} micro-batches" if topology.accumulation > 1 else ""
        yield Problem(
            "train.global_batch_size",
            train.global_batch_size,
            f"does not split over {over}",
            f"use {_multiples(train.global_batch_size, parts)}",
        )


def _device_precision(precision: Precision, topology: CpuTopology | AscendTopology) -> Iterator[Problem]:
    if precision.kind == "bf16" and topology.kind == "cpu":
        yield Problem("precision", "bf16", "does not run on a CPU", "use precision=fp32 or an Ascend topology")


def _warmup(schedule: Schedule, train: TrainConfig) -> Iterator[Problem]:
    if schedule.warmup_epochs > train.epochs:
        rule = f"is longer than the {train.epochs} epochs of training"
        remedy = f"use {train.epochs} or less, or raise train.epochs"
        yield Problem("schedule.warmup_epochs", schedule.warmup_epochs, rule, remedy)


def _final_lr(schedule: Schedule, optimizer: Optimizer) -> Iterator[Problem]:
    if schedule.kind == "cosine" and schedule.final_lr > optimizer.lr:
        rule = f"is above the peak, optimizer.lr={optimizer.lr:g}"
        yield Problem("schedule.final_lr", schedule.final_lr, rule, f"use {optimizer.lr:g} or less")


def _no_password(tracking: MlflowTracking | NoTracking) -> Iterator[Problem]:
    if tracking.kind == "mlflow" and tracking.uri and _SECRET.search(tracking.uri):
        remedy = "put them into MLFLOW_TRACKING_URI or MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
        yield Problem("tracking.uri", "(hidden)", "holds credentials, which would be written to disk", remedy)


_SECRET = re.compile(r"://[^\s]*@|[?&][\w-]*(password|passwd|token|secret|key)=", re.IGNORECASE)

RULES: list[Rule] = [
    (("model",), _shape),
    (("data",), _normalisation),
    (("augment",), _ranges),
    (("train", "topology"), _split),
    (("precision", "topology"), _device_precision),
    (("schedule", "train"), _warmup),
    (("schedule", "optimizer"), _final_lr),
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
    text = repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= MAX_SHOWN else text[: MAX_SHOWN - 3] + "..."


def _unknown(path: str, siblings: list[str]) -> Problem:
    prefix = path.rpartition(".")[0]
    legal = [f"{prefix}.{name}" if prefix else name for name in siblings if name != "kind"]
    return Problem(path, None, "is no key of the configuration", nearest(path, legal) if legal else "remove it")


def _translate(section: str, annotation: Any, error: Any) -> Problem:
    models = variants(annotation)
    where = list(error["loc"])
    if len(models) > 1 and where:  # pydantic puts the chosen member of a union into the path
        models = [model for model in models if kind_of(model) == where[0]]
        where = where[1:]
    path = ".".join([section, *(str(part) for part in where)])
    value = error["input"]
    match error["type"]:
        case "extra_forbidden":
            return _unknown(path, _fields_at(models, where[:-1]))
        case "missing" if where and isinstance(where[-1], int):
            return Problem(path.rpartition(".")[0], value, "has too few values", _purpose(section, models, where))
        case "missing":
            return Problem(path, None, "has no value", f"set {path}=...")
        case "union_tag_invalid" | "union_tag_not_found":
            kinds = [kind_of(model) for model in models]
            found = error["ctx"].get("tag", value)
            return Problem(f"{section}.kind", found, "is no kind of " + section, nearest(str(found), kinds))
        case "model_type" | "model_attributes_type" | "dict_type":
            return Problem(path, value, "is no group of keys", _purpose(section, models, where))
        case _:
            message = error["msg"][0].lower() + error["msg"][1:]
            value = "null" if value is None else value
            return Problem(path, value, f"is refused: {message}", _purpose(section, models, where))


def _fields_at(models: list[type[Frozen]], where: list[Any]) -> list[str]:
    for part in where:
        models = [
            inner
            for model in models
            if part in model.model_fields
            for inner in variants(model.model_fields[part].annotation)
        ]
    return [name for model in models for name in model.model_fields]


def _purpose(section: str, models: list[type[Frozen]], where: list[Any]) -> str:
    names = [part for part in (where if models else [section]) if isinstance(part, str)]
    for model in models or [RunConfig]:
        for name in names:
            if name in model.model_fields:
                field = model.model_fields[name]
                if field.description:
                    return field.description.rstrip(".").lower()[:1] + field.description.rstrip(".")[1:]
                model = next(iter(variants(field.annotation)), model)
    return "see docs/configuration.md"
