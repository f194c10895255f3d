"""The configuration of a run: the types of what is legal.

What is chosen stands in `conf/`; nothing here has a default, so every fact keeps one home. `check.py` judges.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field

Ints3 = Annotated[tuple[int, int, int], Field(strict=False)]
Ints5 = Annotated[tuple[int, int, int, int, int], Field(strict=False)]
Floats3 = Annotated[tuple[float, float, float], Field(strict=False)]
Range = Annotated[tuple[float, float], Field(strict=False)]
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
    workers: int = Field(ge=1, le=256, description="Threads that prepare images, per process.")


class DigitsData(ImagesConfig):
    """scikit-learn's bundled handwritten digits: 1797 real images, 1437 to train and 360 held out."""

    kind: Literal["digits"]


class SyntheticData(ImagesConfig):
    """Seeded noise with a class-dependent pattern: any shape and count, nothing to download."""

    kind: Literal["synthetic"]
    classes: int = Field(ge=1, description="Number of classes.")
    num_train: int = Field(ge=1, description="Training images.")
    num_val: int = Field(ge=1, description="Validation images.")


class ImageFolderData(ImagesConfig):
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


class TopologyConfig(Frozen):
    accumulation: int = Field(
        ge=1, description="Micro-batches whose gradients make one update; the per-device batch is derived."
    )


class CpuTopology(TopologyConfig):
    """Processes on this machine's CPU."""

    kind: Literal["cpu"]
    workers: int = Field(ge=1, le=64, description="Processes; more than one run under msrun.")
    threads: Annotated[int, Field(ge=1)] | None = Field(
        description="Kernel threads of one process; null divides the processors evenly."
    )
    onednn_max_isa: Literal["AVX2", "default"] = Field(
        description="Instruction set oneDNN may use; AVX2 avoids the reference loops it takes for convolutions."
    )


class AscendTopology(TopologyConfig):
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
