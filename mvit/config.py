"""The configuration of a run: the types of what is legal.

What is chosen stands in `conf/`; nothing here has a default, so every fact keeps one home. `parent/request/` judges.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, cast, get_args

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, TypeAdapter

Ints3 = Annotated[tuple[int, int, int], Field(strict=False)]
Ints5 = Annotated[tuple[int, int, int, int, int], Field(strict=False)]
Floats3 = Annotated[tuple[float, float, float], Field(strict=False)]
Range = Annotated[tuple[float, float], Field(strict=False)]
Strings = Annotated[tuple[str, ...], Field(strict=False)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
Rate = Annotated[float, Field(ge=0.0, lt=1.0)]
Probability = Annotated[float, Field(ge=0.0, le=1.0)]


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


class ImagesConfig(Frozen):
    image_size: int = Field(ge=32, le=4096, description="Side of the square input of the network, in pixels.")
    mean: Floats3 = Field(description="Subtracted from each channel, in units of the 0-1 range.")
    std: Floats3 = Field(description="Divides each channel, in units of the 0-1 range.")
    channel_order: Literal["rgb", "bgr"] = Field(description="Order in which the network sees the channels.")
    eval_crop_fraction: float = Field(
        gt=0.0, le=1.0, description="Evaluation resizes the short side to image_size / this, then crops the centre."
    )
    interpolation: Literal["nearest", "bilinear", "bicubic"] = Field(
        description="Interpolation of every resize, in training and evaluation."
    )
    antialias: bool = Field(
        description="Filter before reducing, as Pillow does (timm, cvnets); OpenCV and MindCV do not."
    )
    workers: int = Field(
        ge=1,
        le=256,
        description="Processes that prepare images (threads for images in memory), per training process.",
    )


class DigitsData(ImagesConfig):
    """scikit-learn's bundled handwritten digits: 1797 real images, 1437 to train and 360 held out."""

    kind: Literal["digits"]


class SyntheticData(ImagesConfig):
    """Seeded noise with a class-dependent pattern: any shape and count, nothing to download."""

    kind: Literal["synthetic"]
    classes: int = Field(ge=1, le=1_000_000, description="Number of classes.")
    num_train: int = Field(ge=1, le=10**9, description="Training images.")
    num_val: int = Field(ge=1, le=10**9, description="Validation images.")


class ImageFolderData(ImagesConfig):
    """A folder with `train` and `val`, each holding one folder of images per class."""

    kind: Literal["imagefolder"]
    root: str = Field(min_length=1, description="The folder that holds the two splits.")
    train_folder: str = Field(min_length=1, description="Name of the training split's folder.")
    val_folder: str = Field(min_length=1, description="Name of the validation split's folder.")
    on_unreadable: Literal["refuse", "skip"] = Field(
        description="An image that cannot be decoded: refuse names it before training starts, skip counts it."
    )
    class_names: str | None = Field(
        description="File of lines `folder name`; null takes LOC_synset_mapping.txt of the root if it is there."
    )


class MindRecordData(ImagesConfig):
    """The folder of MindRecord shards that `python -m mvit pack` makes of an image folder."""

    kind: Literal["mindrecord"]
    root: str = Field(min_length=1, description="The folder that holds the shards and manifest.json.")


class Cifar10Data(ImagesConfig):
    """CIFAR-10, binary version (cifar-10-batches-bin): 50,000 + 10,000 images of 32x32."""

    kind: Literal["cifar10"]
    root: str = Field(min_length=1, description="The folder that holds the .bin files.")


class Cifar100Data(ImagesConfig):
    """CIFAR-100, binary version (cifar-100-binary), fine labels: 50,000 + 10,000 images of 32x32."""

    kind: Literal["cifar100"]
    root: str = Field(min_length=1, description="The folder that holds the .bin files.")


class CropConfig(Frozen):
    """Random resized crop."""

    scale: Range = Field(description="Range of the share of the area that is kept.")
    ratio: Range = Field(description="Range of width / height of the crop.")


class ColorJitterConfig(Frozen):
    """Brightness, contrast and saturation by a factor of 1 - value to 1 + value, hue by up to value; random order."""

    brightness: float = Field(ge=0.0, le=1.0, description="Largest change of the factor on brightness.")
    contrast: float = Field(ge=0.0, le=1.0, description="Largest change of the factor on contrast.")
    saturation: float = Field(ge=0.0, le=1.0, description="Largest change of the factor on saturation.")
    hue: float = Field(ge=0.0, le=0.5, description="Largest rotation of the hue, in turns.")


class RandAugmentPolicy(Frozen):
    """RandAugment (arXiv 1909.13719): num_ops operations of 14, each of the same magnitude."""

    kind: Literal["randaugment"]
    num_ops: int = Field(ge=1, le=14, description="Operations of one image.")
    magnitude: int = Field(ge=0, le=30, description="Strength, of 30.")


class TrivialAugmentPolicy(Frozen):
    """TrivialAugment (arXiv 2103.10158): one operation, its strength drawn uniformly from the wide range."""

    kind: Literal["trivialaugment"]


class AutoAugmentPolicy(Frozen):
    """AutoAugment (arXiv 1805.09501): one of the 25 sub-policies found for ImageNet."""

    kind: Literal["autoaugment"]


class ErasingConfig(Frozen):
    """Random erasing (arXiv 1708.04896) of one rectangle."""

    probability: Probability = Field(description="Probability that an image loses a rectangle.")
    scale: Range = Field(description="Range of the share of the area that is erased.")
    ratio: Range = Field(description="Range of height / width of the rectangle.")
    fill: Literal["mean", "noise"] = Field(description="The data's mean, which is 0 after normalisation, or noise.")


class MixConfig(Frozen):
    """Mixup (arXiv 1710.09412) and CutMix (arXiv 1905.04899): a batch is mixed with itself in reverse order."""

    probability: Probability = Field(description="Probability that a batch is mixed.")
    mixup_alpha: float = Field(ge=0.0, description="Both parameters of mixup's Beta distribution; 0 leaves mixup out.")
    cutmix_alpha: float = Field(ge=0.0, description="The same of cutmix; 0 leaves cutmix out.")
    cutmix_share: Probability = Field(description="Share of mixed batches that are cut rather than blended.")


Policy = RandAugmentPolicy | TrivialAugmentPolicy | AutoAugmentPolicy


class AugmentConfig(Frozen):
    """What happens to a training image; a function of (seed, epoch, index, view) and of nothing else."""

    crop: CropConfig | None = Field(description="Random resized crop; null resizes and crops the centre.")
    horizontal_flip: Probability = Field(description="Probability of a horizontal flip.")
    color_jitter: ColorJitterConfig | None = Field(description="Random changes of colour; null makes none.")
    policy: Annotated[Policy, Field(discriminator="kind")] | None = Field(
        description="Learned or random policy of operations; null applies none."
    )
    erasing: ErasingConfig | None = Field(description="Random erasing; null erases nothing.")
    mix: MixConfig | None = Field(description="Mixup and cutmix; null mixes nothing.")
    repeats: int = Field(
        ge=1, le=64, description="Views of a sample that follow one another (repeated augmentation, arXiv 1901.09335)."
    )


class OptimizerConfig(Frozen):
    lr: float = Field(gt=0.0, description="Peak learning rate.")
    lr_batch_size: Annotated[int, Field(ge=1)] | None = Field(
        description="Global batch that lr is stated for: lr is scaled by train.global_batch_size / this; null does not."
    )
    weight_decay: float = Field(ge=0.0, description="Weight decay; decoupled ones are multiplied by the learning rate.")
    decay_excludes: Literal["nothing", "norm_and_bias"] = Field(
        description="Parameters without decay; both published recipes decay all of them."
    )
    layer_decay: float = Field(
        gt=0.0, le=1.0, description="Factor on the rate for each layer further from the head; 1 treats all alike."
    )


class AdamWConfig(OptimizerConfig):
    """AdamW with bias correction (arXiv 1711.05101)."""

    kind: Literal["adamw"]
    beta1: Rate = Field(description="Decay of the first moment.")
    beta2: Rate = Field(description="Decay of the second moment.")
    eps: float = Field(gt=0.0, description="Added to the root of the second moment.")


class SgdConfig(OptimizerConfig):
    """SGD with momentum; the decay is added to the gradient."""

    kind: Literal["sgd"]
    momentum: Rate = Field(description="Share of the last step's velocity that is kept.")
    nesterov: bool = Field(description="Look ahead by one step of the velocity.")


class LionConfig(OptimizerConfig):
    """Lion (arXiv 2302.06675): the sign of an interpolated momentum; wants a lower rate and more decay than AdamW."""

    kind: Literal["lion"]
    beta1: Rate = Field(description="Share of the momentum in the update.")
    beta2: Rate = Field(description="Decay of the momentum.")


class LambConfig(OptimizerConfig):
    """LAMB (arXiv 1904.00962): AdamW whose update of each tensor is scaled to the norm of its weights."""

    kind: Literal["lamb"]
    beta1: Rate = Field(description="Decay of the first moment.")
    beta2: Rate = Field(description="Decay of the second moment.")
    eps: float = Field(gt=0.0, description="Added to the root of the second moment.")


class WarmupConfig(Frozen):
    warmup: float = Field(ge=0.0, description="Length of the linear warm-up.")
    warmup_unit: Literal["epochs", "steps"] = Field(description="What warmup counts.")
    warmup_from: float = Field(ge=0.0, description="Learning rate of the first step of the warm-up.")


class CosineSchedule(WarmupConfig):
    """Linear warm-up, then half a cosine from optimizer.lr to final_lr."""

    kind: Literal["cosine"]
    final_lr: float = Field(ge=0.0, description="Learning rate that the cosine ends at.")
    begins: Literal["after_warmup", "at_start"] = Field(
        description="Where the cosine begins; at_start: under the warm-up, which hides its first part (cvnets)."
    )
    changes_every: Literal["step", "epoch"] = Field(description="How often the cosine's rate is computed anew.")


class ConstantSchedule(WarmupConfig):
    """Linear warm-up, then optimizer.lr."""

    kind: Literal["constant"]


class StepSchedule(WarmupConfig):
    """Linear warm-up, then optimizer.lr times factor for each milestone that has passed."""

    kind: Literal["step"]
    milestones: Annotated[tuple[float, ...], Field(strict=False)] = Field(description="Epochs after which it drops.")
    factor: float = Field(gt=0.0, lt=1.0, description="Factor of each drop.")


class PolynomialSchedule(WarmupConfig):
    """Linear warm-up, then from optimizer.lr to final_lr as (1 - t) to the power."""

    kind: Literal["polynomial"]
    final_lr: float = Field(ge=0.0, description="Learning rate that it ends at.")
    power: float = Field(gt=0.0, description="Power of the rest of the way; 1 is linear.")


class OneCycleSchedule(Frozen):
    """One cycle (arXiv 1708.07120): a cosine up to optimizer.lr, a cosine down."""

    kind: Literal["one_cycle"]
    rising: float = Field(gt=0.0, lt=1.0, description="Share of the steps in which the rate rises.")
    initial_lr: float = Field(ge=0.0, description="Learning rate of the first step.")
    final_lr: float = Field(ge=0.0, description="Learning rate that it ends at.")


class BucketConfig(Frozen):
    """One shape of multi-scale batches."""

    image_size: int = Field(ge=32, le=4096, description="Side of the images, in pixels.")
    global_batch_size: int = Field(ge=1, description="Images of one update, over all devices.")


class TrainConfig(Frozen):
    """The recipe's loop."""

    epochs: int = Field(ge=1, description="Passes over the training images.")
    max_steps: Annotated[int, Field(ge=1)] | None = Field(
        description="Stop after this many steps, the schedule being that of all epochs; null does not."
    )
    global_batch_size: int = Field(
        ge=1,
        description="Images of one update, over all devices; with buckets, what lr_batch_size refers to.",
    )
    accumulation: int = Field(
        ge=1, description="Micro-batches whose gradients make one update; the per-device batch is derived."
    )
    buckets: Annotated[tuple[BucketConfig, ...], Field(strict=False)] = Field(
        description="Multi-scale training (section 3.2 of the paper): shapes of which each step has one; [] has none."
    )
    label_smoothing: Rate = Field(description="Share of the target spread over all classes.")
    clip_norm: Annotated[float, Field(gt=0.0)] | None = Field(
        description="Limit of the global gradient norm, after the reduction over devices; null does not clip."
    )
    clip_value: Annotated[float, Field(gt=0.0)] | None = Field(
        description="Limit of each gradient's absolute value, after the reduction over devices; null does not clip."
    )
    ema_momentum: Annotated[float, Field(gt=0.0, lt=1.0)] | None = Field(
        description="Share of the new weights in their exponential moving average, each step; null keeps no average."
    )
    freeze: Strings = Field(description="Patterns of parameters that are not trained, as stem.* or stages.*")
    log_every_steps: int = Field(ge=1, description="Steps between two journal lines; each one waits for the device.")
    eval_every_epochs: int = Field(ge=1, description="Epochs between two evaluations; the last epoch always has one.")
    eval_batch_size: int = Field(ge=1, description="Images of one evaluation step, per device.")
    checkpoint_every_steps: Annotated[int, Field(ge=1)] | None = Field(
        description="Steps between two checkpoints, beside the one of each evaluation; null makes no others."
    )
    keep_last: int = Field(ge=2, description="Newest checkpoints that are kept; of two, one may be torn.")
    keep_best: int = Field(ge=1, description="Best checkpoints that are kept.")
    max_restarts: int = Field(
        ge=0, le=1000, description="Times the run resumes by itself after a failure that may not come back."
    )


class CheckpointConfig(Frozen):
    checkpoint: str = Field(min_length=1, description="A .safetensors file of mvit, or a run folder (its best).")
    weights: Literal["best", "raw", "ema"] = Field(
        description="Which of a checkpoint's weights; best takes those that were better when it was written."
    )


class RandomInit(Frozen):
    """Initial weights drawn from the seed."""

    kind: Literal["random"]


class WeightsInit(CheckpointConfig):
    """Fine-tuning: initial weights from a checkpoint; the head is new where the number of classes differs."""

    kind: Literal["weights"]


class Fp32Precision(Frozen):
    """Everything in float32: O0."""

    kind: Literal["fp32"]


class AutoLossScale(Frozen):
    """In fp16 a dynamic scale from 1024, doubled after 2000 steps without an overflow; none in fp32 and bf16."""

    kind: Literal["auto"]


class FixedLossScale(Frozen):
    """A constant factor on the loss; fp16 only."""

    kind: Literal["fixed"]
    value: float = Field(ge=1.0, le=2.0**60, description="Factor on the loss, divided out of the gradients.")


class DynamicLossScale(Frozen):
    """A factor on the loss that is divided after an overflow and multiplied after enough steps without; fp16 only."""

    kind: Literal["dynamic"]
    initial: float = Field(ge=1.0, le=2.0**60, description="First factor on the loss.")
    factor: float = Field(gt=1.0, description="What the scale is divided and multiplied by.")
    growth_steps: int = Field(ge=1, description="Steps without overflow after which the scale grows.")


FP16_LOSS_SCALE = DynamicLossScale(kind="dynamic", initial=1024.0, factor=2.0, growth_steps=2000)
"""What `auto` is in fp16: MindCV's."""

Level = Literal["O1", "O2", "O3"]
LEVELS = "O1: convolutions and matrix products; O2: all but normalisation; O3: the whole network."


class Fp16Precision(Frozen):
    """Network in float16 as far as the level says; weights, loss and optimizer in float32."""

    kind: Literal["fp16"]
    level: Level = Field(description=LEVELS)


class Bf16Precision(Frozen):
    """Network in bfloat16 as far as the level says, the rest in float32; Ascend only."""

    kind: Literal["bf16"]
    level: Level = Field(description=LEVELS)


class CpuTopology(Frozen):
    """Processes on this machine's CPU."""

    kind: Literal["cpu"]
    workers: int = Field(ge=1, le=64, description="Processes; more than one run under msrun.")
    threads: Annotated[int, Field(ge=1)] | None = Field(
        description="Kernel threads of one process; null divides the processors evenly."
    )
    onednn_max_isa: Literal["AVX2", "default"] = Field(
        description="Instruction set oneDNN may use; AVX2 avoids the reference loops it takes for convolutions."
    )


class AscendTopology(Frozen):
    """Ascend cards on one or more machines."""

    kind: Literal["ascend"]
    nodes: int = Field(ge=1, description="Machines.")
    cards_per_node: int = Field(ge=1, le=64, description="Cards of one machine, one process each.")
    bind_core: bool = Field(description="msrun binds each process to its own processors.")
    jit_level: Literal["O0", "O1", "O2"] = Field(description="MindSpore's compilation level; O2 is whole-graph.")


class LimitsConfig(Frozen):
    """The limits of the stages that every task has."""

    join_s: float = Field(gt=0.0, description="From the start of the processes until they have found each other.")
    data_s: float = Field(gt=0.0, description="Opening the data and building the network.")
    compile_s: float = Field(gt=0.0, description="Compiling all graphs.")
    evaluate_s: float = Field(gt=0.0, description="One whole evaluation.")


class TrainLimitsConfig(LimitsConfig):
    """Seconds a worker may be in a stage without getting on; a run past them is ended, naming stage and rank."""

    step_s: float = Field(gt=0.0, description="One training step, checkpoints included.")


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


class EvaluateTask(CheckpointConfig):
    """Evaluate a checkpoint or imported weights on the validation images."""

    kind: Literal["evaluate"]
    batch_size: int = Field(ge=1, description="Images of one step, per device.")


Data = Annotated[
    DigitsData | SyntheticData | ImageFolderData | MindRecordData | Cifar10Data | Cifar100Data,
    Field(discriminator="kind"),
]
Optimizer = Annotated[AdamWConfig | SgdConfig | LionConfig | LambConfig, Field(discriminator="kind")]
Schedule = Annotated[
    CosineSchedule | ConstantSchedule | StepSchedule | PolynomialSchedule | OneCycleSchedule,
    Field(discriminator="kind"),
]
Init = Annotated[RandomInit | WeightsInit, Field(discriminator="kind")]
Precision = Annotated[Fp32Precision | Fp16Precision | Bf16Precision, Field(discriminator="kind")]
Topology = Annotated[CpuTopology | AscendTopology, Field(discriminator="kind")]
LossScale = Annotated[AutoLossScale | FixedLossScale | DynamicLossScale, Field(discriminator="kind")]
Tracking = Annotated[MlflowTracking | NoTracking, Field(discriminator="kind")]
Task = TrainTask | EvaluateTask


class CommonConfig(Frozen):
    """What every task uses."""

    name: Name = Field(description="Name of the run; its folder is runs_dir/name/time-id.")
    runs_dir: str = Field(min_length=1, description="Where run folders are made; relative to the checkout.")
    dry_run: bool = Field(description="Print the plan and stop.")
    freeze: bool = Field(description="Make the run folder, print its path and stop; `python -m mvit run` executes it.")
    model: ModelConfig
    data: Data
    precision: Precision
    topology: Topology
    tracking: Tracking


class TrainRun(CommonConfig):
    """A run of task=train."""

    task: TrainTask
    limits: TrainLimitsConfig
    seed: int = Field(ge=0, lt=2**31, description="Seeds initial weights, order of images, augmentation and dropout.")
    init: Init
    augment: AugmentConfig
    optimizer: Optimizer
    schedule: Schedule
    train: TrainConfig
    loss_scale: LossScale

    @property
    def scaling(self) -> FixedLossScale | DynamicLossScale | None:
        """The factor on the loss; None in fp32 and bf16, which need none."""
        if not isinstance(self.precision, Fp16Precision):
            return None
        return FP16_LOSS_SCALE if isinstance(self.loss_scale, AutoLossScale) else self.loss_scale

    @property
    def eval_batch_size(self) -> int:
        return self.train.eval_batch_size

    @property
    def max_restarts(self) -> int:
        return self.train.max_restarts


class EvaluateRun(CommonConfig):
    """A run of task=evaluate."""

    task: EvaluateTask
    limits: LimitsConfig

    @property
    def eval_batch_size(self) -> int:
        return self.task.batch_size

    @property
    def max_restarts(self) -> int:
        return 0  # nothing is lost by starting it again by hand


def _task_kind(run: Any) -> Any:
    """The value of task.kind, of a model or of plain values."""
    if isinstance(run, CommonConfig):
        return getattr(run, "task").kind  # noqa: B009  each member of the union has it, their common part has not
    task = cast(Mapping[str, Any], run).get("task") if isinstance(run, Mapping) else None
    return cast(Mapping[str, Any], task).get("kind") if isinstance(task, Mapping) else None


RunConfig = Annotated[
    Annotated[TrainRun, Tag("train")] | Annotated[EvaluateRun, Tag("evaluate")], Discriminator(_task_kind)
]
"""One run: a task, and the sections that it uses."""

_ANY_RUN: TypeAdapter[RunConfig] = TypeAdapter(RunConfig)


def validated(raw: Mapping[str, Any]) -> RunConfig:
    """The run that plain values describe; raises pydantic's `ValidationError`."""
    return _ANY_RUN.validate_python(dict(raw))


def validated_json(text: str) -> RunConfig:
    """The same of JSON, where a list is a tuple."""
    return _ANY_RUN.validate_json(text)


def world_size(topology: CpuTopology | AscendTopology) -> int:
    """Number of processes that train together."""
    return topology.workers if topology.kind == "cpu" else topology.nodes * topology.cards_per_node


def variants(annotation: Any) -> list[type[Frozen]]:
    """The models an annotation allows: one, the members of a union, or none for a plain value."""
    if isinstance(annotation, type) and issubclass(annotation, Frozen):
        return [annotation]
    return [model for argument in get_args(annotation) for model in variants(argument)]


def kind_of(model: type[Frozen]) -> str:
    """The value of `kind` that selects a member of a union."""
    return get_args(model.model_fields["kind"].annotation)[0]


TASKS: dict[str, type[CommonConfig]] = {
    kind_of(variants(model.model_fields["task"].annotation)[0]): cast(type[CommonConfig], model)
    for model in variants(RunConfig)
}
"""The model of a run by its task."""
