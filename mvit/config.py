"""The configuration of a run: what is legal.

What is chosen stands in `conf/`; nothing here has a default, so every fact keeps one home. `parse` turns composed YAML
into a frozen `RunConfig` or raises `ConfigError` with every problem found.

    ConfigError         the request is wrong: one line for each `Problem`, exit code 2
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Annotated, Any, Literal, cast, get_args, get_type_hints

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

Ints3 = Annotated[tuple[int, int, int], Field(strict=False)]
Ints5 = Annotated[tuple[int, int, int, int, int], Field(strict=False)]
Floats3 = Annotated[tuple[float, float, float], Field(strict=False)]
Range = Annotated[tuple[float, float], Field(strict=False)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
Rate = Annotated[float, Field(ge=0.0, lt=1.0)]
Probability = Annotated[float, Field(ge=0.0, le=1.0)]


MAX_SHOWN = 300
"""Characters of a wrong value that are repeated: a path fits."""


class Frozen(BaseModel):
    """Strict, immutable, and closed: a key that is not a field is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class ModelConfig(Frozen):
    """The architecture, MobileViT (arXiv 2110.02178, table 4)."""

    name: Name = Field(description="Name in result tables.")
    num_classes: Annotated[int, Field(ge=1)] | None = Field(
        description="Classes of the head; null takes the number that the data has."
    )
    stem_channels: int = Field(gt=0, description="Channels after the 3x3 stem of stride 2.")
    channels: Ints5 = Field(description="Channels of stages 1 to 5.")
    conv_blocks: Ints5 = Field(description="Inverted residual blocks of each stage; the first one downsamples.")
    expansion: int = Field(gt=0, description="Channel expansion of the inverted residual blocks.")
    depths: Ints3 = Field(description="Transformer layers of stages 3, 4 and 5.")
    features: Ints3 = Field(description="Token features of stages 3, 4 and 5.")
    hidden: Ints3 = Field(description="Hidden features of the feed-forward of stages 3, 4 and 5.")
    heads: int = Field(gt=0, description="Attention heads.")
    token_projection: Literal["linear", "conv_norm_silu"] = Field(
        description="1x1 convolution to tokens: alone (the paper), or with BatchNorm and SiLU (MindCV's weights)."
    )
    final_expansion: int = Field(gt=0, description="Channel expansion of the last 1x1 convolution.")
    dropout: Rate = Field(description="Dropout after attention and after feed-forward.")
    classifier_dropout: Rate = Field(description="Dropout before the head.")
    layer_norm_eps: float = Field(gt=0.0, description="Epsilon of every LayerNorm (MindCV's weights want 1e-7).")


class _Images(Frozen):
    image_size: int = Field(ge=32, le=4096, description="Side of the square input of the network, in pixels.")
    mean: Floats3 = Field(description="Subtracted from each channel, in units of the 0-1 range.")
    std: Floats3 = Field(description="Divides each channel, in units of the 0-1 range.")
    channel_order: Literal["rgb", "bgr"] = Field(description="Order in which the network sees the channels.")
    eval_crop_fraction: float = Field(
        gt=0.0, le=1.0, description="Evaluation resizes the short side to image_size / this, then crops the centre."
    )
    workers: int = Field(ge=1, le=256, description="Threads that prepare images, per process.")


class DigitsData(_Images):
    """scikit-learn's bundled handwritten digits: 1797 real images, 1437 to train and 360 held out."""

    kind: Literal["digits"]


class SyntheticData(_Images):
    """Seeded noise with a class-dependent pattern: any shape and count, nothing to download."""

    kind: Literal["synthetic"]
    classes: int = Field(ge=1, description="Number of classes.")
    num_train: int = Field(ge=1, description="Training images.")
    num_val: int = Field(ge=1, description="Validation images.")


class ImageFolderData(_Images):
    """A folder with `train` and `val`, each holding one folder of images per class."""

    kind: Literal["imagefolder"]
    root: str = Field(min_length=1, description="The folder that holds the two splits.")
    train_folder: str = Field(min_length=1, description="Name of the training split's folder.")
    val_folder: str = Field(min_length=1, description="Name of the validation split's folder.")
    on_unreadable: Literal["refuse", "skip"] = Field(
        description="An image that cannot be decoded: refuse names it before training starts, skip counts it."
    )


class CropConfig(Frozen):
    """Random resized crop."""

    scale: Range = Field(description="Range of the share of the area that is kept.")
    ratio: Range = Field(description="Range of width / height of the crop.")


class AugmentConfig(Frozen):
    """What happens to a training image; a function of (seed, epoch, index) and of nothing else."""

    crop: CropConfig | None = Field(description="Random resized crop; null resizes and crops the centre.")
    interpolation: Literal["nearest", "bilinear", "bicubic"] = Field(description="Interpolation of every resize.")
    horizontal_flip: Probability = Field(description="Probability of a horizontal flip.")


class AdamWConfig(Frozen):
    """AdamW with bias correction (arXiv 1711.05101); decay on every parameter, as the published recipes have it."""

    kind: Literal["adamw"]
    lr: float = Field(gt=0.0, description="Peak learning rate.")
    weight_decay: float = Field(ge=0.0, description="Decoupled weight decay, multiplied by the learning rate.")
    beta1: Rate = Field(description="Decay of the first moment.")
    beta2: Rate = Field(description="Decay of the second moment.")
    eps: float = Field(gt=0.0, description="Added to the root of the second moment.")


class CosineSchedule(Frozen):
    """Linear warm-up from zero, then half a cosine from optimizer.lr to final_lr."""

    kind: Literal["cosine"]
    warmup_epochs: float = Field(ge=0.0, description="Length of the linear warm-up, in epochs.")
    final_lr: float = Field(ge=0.0, description="Learning rate of the last step.")


class ConstantSchedule(Frozen):
    """Linear warm-up from zero, then optimizer.lr."""

    kind: Literal["constant"]
    warmup_epochs: float = Field(ge=0.0, description="Length of the linear warm-up, in epochs.")


class TrainConfig(Frozen):
    """The recipe's loop."""

    epochs: int = Field(ge=1, description="Passes over the training images.")
    global_batch_size: int = Field(ge=1, description="Images of one update, over all devices.")
    label_smoothing: Rate = Field(description="Share of the target spread over all classes.")
    clip_norm: Annotated[float, Field(gt=0.0)] | None = Field(
        description="Limit of the global gradient norm, after the reduction over devices; null does not clip."
    )
    log_every_steps: int = Field(ge=1, description="Steps between two journal lines; each one waits for the device.")
    eval_every_epochs: int = Field(ge=1, description="Epochs between two evaluations; the last epoch always has one.")
    eval_batch_size: int = Field(ge=1, description="Images of one evaluation step, per device.")


class Fp32Precision(Frozen):
    """Everything in float32."""

    kind: Literal["fp32"]


class Fp16Precision(Frozen):
    """Network in float16; normalisation, loss, weights and optimizer in float32."""

    kind: Literal["fp16"]
    loss_scale: float = Field(ge=1.0, description="Fixed factor on the loss, divided out of the gradients.")


class Bf16Precision(Frozen):
    """Network in bfloat16, the rest in float32; Ascend only."""

    kind: Literal["bf16"]


class _Topology(Frozen):
    accumulation: int = Field(
        ge=1, description="Micro-batches whose gradients make one update; the per-device batch is derived."
    )


class CpuTopology(_Topology):
    """Processes on this machine's CPU."""

    kind: Literal["cpu"]
    workers: int = Field(ge=1, le=64, description="Processes; more than one run under msrun.")
    threads: Annotated[int, Field(ge=1)] | None = Field(
        description="Kernel threads of one process; null divides the processors evenly."
    )
    onednn_max_isa: Literal["AVX2", "default"] = Field(
        description="Instruction set oneDNN may use; AVX2 avoids the reference loops it takes for convolutions."
    )


class AscendTopology(_Topology):
    """Ascend cards on one or more machines."""

    kind: Literal["ascend"]
    nodes: int = Field(ge=1, description="Machines.")
    cards_per_node: int = Field(ge=1, le=64, description="Cards of one machine, one process each.")
    bind_core: bool = Field(description="msrun binds each process to its own processors.")
    jit_level: Literal["O0", "O1", "O2"] = Field(description="MindSpore's compilation level; O2 is whole-graph.")
    sink: bool = Field(description="Feed the device through MindSpore's data queue.")


class MlflowTracking(Frozen):
    """Mirror runs to MLflow."""

    kind: Literal["mlflow"]
    uri: str | None = Field(
        description="Tracking store; null takes MLFLOW_TRACKING_URI, else mlflow.db in the checkout. No passwords."
    )
    experiment: str = Field(min_length=1, description="MLflow experiment.")


class NoTracking(Frozen):
    """The run folder alone."""

    kind: Literal["none"]


class TrainTask(Frozen):
    """Train, evaluate, keep checkpoints."""

    kind: Literal["train"]


class EvaluateTask(Frozen):
    """Evaluate a checkpoint or imported weights on the validation images."""

    kind: Literal["evaluate"]
    checkpoint: str = Field(min_length=1, description="A .safetensors file of mvit, or a run folder (its best).")


Data = Annotated[DigitsData | SyntheticData | ImageFolderData, Field(discriminator="kind")]
# A union of one is no union to pydantic: the literal `kind` does the same work until there is a second optimizer.
Optimizer = AdamWConfig
Schedule = Annotated[CosineSchedule | ConstantSchedule, Field(discriminator="kind")]
Precision = Annotated[Fp32Precision | Fp16Precision | Bf16Precision, Field(discriminator="kind")]
Topology = Annotated[CpuTopology | AscendTopology, Field(discriminator="kind")]
Tracking = Annotated[MlflowTracking | NoTracking, Field(discriminator="kind")]
Task = Annotated[TrainTask | EvaluateTask, Field(discriminator="kind")]


class RunConfig(Frozen):
    """One run."""

    name: Name = Field(description="Name of the run; its folder is runs_dir/name/time-id.")
    seed: int = Field(ge=0, lt=2**31, description="Seeds initial weights, order of images, augmentation and dropout.")
    runs_dir: str = Field(min_length=1, description="Where run folders are made; relative to the checkout.")
    dry_run: bool = Field(description="Print the plan and stop.")
    model: ModelConfig
    data: Data
    augment: AugmentConfig
    optimizer: Optimizer
    schedule: Schedule
    train: TrainConfig
    precision: Precision
    topology: Topology
    tracking: Tracking
    task: Task


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


def _normalisation(data: _Images) -> Iterator[Problem]:
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
    if tracking.kind == "mlflow" and tracking.uri and "@" in tracking.uri.split("://")[-1].split("/")[0]:
        remedy = "put them into MLFLOW_TRACKING_URI or MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
        yield Problem("tracking.uri", "(hidden)", "holds credentials, which would be written to disk", remedy)


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


def world_size(topology: CpuTopology | AscendTopology) -> int:
    """Number of processes that train together."""
    return topology.workers if topology.kind == "cpu" else topology.nodes * topology.cards_per_node


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


def variants(annotation: Any) -> list[type[Frozen]]:
    """The models an annotation allows: one, the members of a union, or none for a plain value."""
    if isinstance(annotation, type) and issubclass(annotation, Frozen):
        return [annotation]
    return [model for argument in get_args(annotation) for model in variants(argument)]


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
            return Problem(path, None, "is missing", _purpose(section, models, where))
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


def kind_of(model: type[Frozen]) -> str:
    """The value of `kind` that selects a member of a union."""
    return get_args(model.model_fields["kind"].annotation)[0]


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
