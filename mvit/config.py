"""Configuration: the types that define what a run may be.

The values are chosen in `conf/`; nothing here has a default, so that every fact has one home. `parent/request/` checks
what types cannot express.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from itertools import product
from typing import Annotated, Any, ClassVar, Literal, cast, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag, TypeAdapter

Ints3 = Annotated[tuple[int, int, int], Field(strict=False)]
Ints5 = Annotated[tuple[int, int, int, int, int], Field(strict=False)]
Floats3 = Annotated[tuple[float, float, float], Field(strict=False)]
Range = Annotated[tuple[float, float], Field(strict=False)]
JobWord = Annotated[str, Field(pattern=r"^[\w.,:+-]+$")]
"""A name in a scheduler's configuration, written into a script."""
Strings = Annotated[tuple[str, ...], Field(strict=False)]
OneOrMore = Annotated[Strings, BeforeValidator(lambda value: [value] if isinstance(value, str) else value)]
"""A list of texts, or one without the brackets."""
NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$"
Name = Annotated[str, Field(pattern=NAME_PATTERN)]
Rate = Annotated[float, Field(ge=0.0, lt=1.0)]
Probability = Annotated[float, Field(ge=0.0, le=1.0)]


class Frozen(BaseModel):
    """Strict, immutable, and closed: a key that is not a field is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class ModelConfig(Frozen):
    """The architecture, MobileViT (arXiv 2110.02178, table 4)."""

    name: Name = Field(description="Name in result tables.")
    num_classes: Annotated[int, Field(ge=1)] | None = Field(
        description="Classes of the head; null uses the number of classes in the data."
    )
    stem_channels: int = Field(gt=0, description="Channels after the 3x3 stem (stride 2).")
    channels: Ints5 = Field(description="Channels of stages 1 to 5.")
    conv_blocks: Ints5 = Field(description="Inverted residual blocks of each stage; the first one downsamples.")
    expansion: int = Field(gt=0, description="Channel expansion of the inverted residual blocks.")
    depths: Ints3 = Field(description="Transformer layers of stages 3, 4 and 5.")
    features: Ints3 = Field(description="Token features of stages 3, 4 and 5.")
    hidden: Ints3 = Field(description="Hidden features of the feed-forward layers in stages 3, 4 and 5.")
    heads: int = Field(gt=0, description="Attention heads.")
    token_projection: Literal["linear", "conv_norm_silu"] = Field(
        description="1x1 convolution to tokens: plain (the paper), or with BatchNorm and SiLU (MindCV's weights)."
    )
    final_expansion: int = Field(gt=0, description="Channel expansion of the last 1x1 convolution.")
    dropout: Rate = Field(description="Dropout rate after attention and after the feed-forward layer.")
    classifier_dropout: Rate = Field(description="Dropout rate before the head.")
    layer_norm_eps: float = Field(gt=0.0, description="Epsilon of every LayerNorm (MindCV's weights need 1e-7).")
    kernels: Literal["auto", "plain", "fused"] = Field(
        description="MindSpore's own operators (plain), or mvit's, several times as fast (fused: on a CPU, in fp32);"
        " auto uses fused where it is available."
    )


class ImagesConfig(Frozen):
    image_size: int = Field(ge=32, le=4096, description="Side length of the network's square input, in pixels.")
    mean: Floats3 = Field(description="Mean that is subtracted from each channel, on a 0-1 scale.")
    std: Floats3 = Field(description="Standard deviation that each channel is divided by, on a 0-1 scale.")
    channel_order: Literal["rgb", "bgr"] = Field(description="Channel order that the network expects.")
    eval_crop_fraction: float = Field(
        gt=0.0,
        le=1.0,
        description="Evaluation resizes the short side to image_size / eval_crop_fraction, then crops the centre.",
    )
    interpolation: Literal["nearest", "bilinear", "bicubic"] = Field(
        description="Interpolation for every resize, in training and evaluation."
    )
    antialias: bool = Field(
        description="Low-pass filter when shrinking, as in Pillow (timm, cvnets); OpenCV and MindCV have none."
    )
    workers: int = Field(
        ge=1,
        le=256,
        description="Processes (for images in memory: threads) that prepare images, per training process.",
    )


class DigitsData(ImagesConfig):
    """scikit-learn's bundled handwritten digits: 1797 real images, 1437 for training and 360 for validation."""

    kind: Literal["digits"]


class SyntheticData(ImagesConfig):
    """Seeded noise over a pattern that depends on the class: any size and count, nothing to download."""

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
        description="Images that cannot be decoded: refuse reports them before training, skip leaves them out."
    )
    class_names: str | None = Field(
        description="File with lines `folder name`; null uses LOC_synset_mapping.txt in root if it exists."
    )


class MindRecordData(ImagesConfig):
    """A folder of MindRecord shards, written by `python -m mvit pack` from an image folder."""

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


class FilesData(ImagesConfig):
    """Image files without labels, which a network is to predict."""

    kind: Literal["files"]
    images: OneOrMore = Field(
        min_length=1, description="Files, folders and patterns such as photos/*.jpg; - reads paths from standard input."
    )
    class_names: Strings = Field(description="Names of the network's classes; [] takes them from its run, or numbers.")


class NoiseData(ImagesConfig):
    """Images of noise that a task makes in memory, to measure steps. No section: derived, see `StepsRun`."""

    kind: Literal["noise"]
    classes: int


class CropConfig(Frozen):
    """Random resized crop."""

    scale: Range = Field(description="Range of the share of the area that is kept.")
    ratio: Range = Field(description="Range of the crop's aspect ratio, width / height.")


class ColorJitterConfig(Frozen):
    """Brightness, contrast, saturation scaled by 1 - value to 1 + value, hue rotated by up to value; random order."""

    brightness: float = Field(ge=0.0, le=1.0, description="Maximum change of brightness, as a share.")
    contrast: float = Field(ge=0.0, le=1.0, description="Maximum change of contrast, as a share.")
    saturation: float = Field(ge=0.0, le=1.0, description="Maximum change of saturation, as a share.")
    hue: float = Field(ge=0.0, le=0.5, description="Maximum rotation of the hue, in turns.")


class RandAugmentPolicy(Frozen):
    """RandAugment (arXiv 1909.13719): num_ops of 14 operations, all with the same magnitude."""

    kind: Literal["randaugment"]
    num_ops: int = Field(ge=1, le=14, description="Operations per image.")
    magnitude: int = Field(ge=0, le=30, description="Strength, from 0 to 30.")


class TrivialAugmentPolicy(Frozen):
    """TrivialAugment (arXiv 2103.10158): one operation per image, its strength drawn from the wide range."""

    kind: Literal["trivialaugment"]


class AutoAugmentPolicy(Frozen):
    """AutoAugment (arXiv 1805.09501): one of the 25 sub-policies learned on ImageNet."""

    kind: Literal["autoaugment"]


class ErasingConfig(Frozen):
    """Random erasing (arXiv 1708.04896) of one rectangle."""

    probability: Probability = Field(description="Probability that an image is erased in part.")
    scale: Range = Field(description="Range of the share of the area that is erased.")
    ratio: Range = Field(description="Range of the rectangle's aspect ratio, height / width.")
    fill: Literal["mean", "noise"] = Field(description="What fills the rectangle: the mean of the data, or noise.")


class MixConfig(Frozen):
    """Mixup (arXiv 1710.09412) and CutMix (arXiv 1905.04899): each batch is mixed with itself in reverse order."""

    probability: Probability = Field(description="Probability that a batch is mixed.")
    mixup_alpha: float = Field(ge=0.0, description="Both parameters of mixup's Beta distribution; 0 disables mixup.")
    cutmix_alpha: float = Field(ge=0.0, description="Both parameters of CutMix's Beta distribution; 0 disables CutMix.")
    cutmix_share: Probability = Field(description="Share of the mixed batches that use CutMix rather than mixup.")


Policy = RandAugmentPolicy | TrivialAugmentPolicy | AutoAugmentPolicy


class AugmentConfig(Frozen):
    """How training images are augmented; depends on (seed, epoch, index, view) alone."""

    crop: CropConfig | None = Field(description="Random resized crop; null resizes and crops the centre.")
    horizontal_flip: Probability = Field(description="Probability of a horizontal flip.")
    color_jitter: ColorJitterConfig | None = Field(description="Random changes of colour; null disables them.")
    policy: Annotated[Policy, Field(discriminator="kind")] | None = Field(
        description="Learned or random augmentation policy; null disables it."
    )
    erasing: ErasingConfig | None = Field(description="Random erasing; null disables it.")
    mix: MixConfig | None = Field(description="Mixup and CutMix; null disables both.")
    repeats: int = Field(
        ge=1, le=64, description="Consecutive views of each sample (repeated augmentation, arXiv 1901.09335)."
    )


class OptimizerConfig(Frozen):
    moments: ClassVar[int] = 2
    """Tensors that are kept for each trained parameter."""

    lr: float = Field(gt=0.0, description="Peak learning rate.")
    lr_batch_size: Annotated[int, Field(ge=1)] | None = Field(
        description="Global batch size that lr is stated for; lr is scaled to train.global_batch_size. null: unscaled."
    )
    weight_decay: float = Field(
        ge=0.0, description="Weight decay; where it is decoupled, it is multiplied by the learning rate."
    )
    decay_excludes: Literal["nothing", "norm_and_bias"] = Field(
        description="Parameters exempt from weight decay; both published recipes decay all of them."
    )
    layer_decay: float = Field(
        gt=0.0,
        le=1.0,
        description="Factor on the learning rate for each layer further from the head; 1 treats all alike.",
    )


class AdamWConfig(OptimizerConfig):
    """AdamW with bias correction (arXiv 1711.05101)."""

    kind: Literal["adamw"]
    beta1: Rate = Field(description="Decay rate of the first moment.")
    beta2: Rate = Field(description="Decay rate of the second moment.")
    eps: float = Field(gt=0.0, description="Added to the square root of the second moment.")


class SgdConfig(OptimizerConfig):
    """SGD with momentum; weight decay is added to the gradient."""

    moments: ClassVar[int] = 1
    kind: Literal["sgd"]
    momentum: Rate = Field(description="Share of the previous velocity that is kept.")
    nesterov: bool = Field(description="Use Nesterov momentum.")


class LionConfig(OptimizerConfig):
    """Lion (arXiv 2302.06675): the sign of an interpolated momentum; needs a lower rate and more decay than AdamW."""

    moments: ClassVar[int] = 1
    kind: Literal["lion"]
    beta1: Rate = Field(description="Share of the momentum in the update.")
    beta2: Rate = Field(description="Decay rate of the momentum.")


class LambConfig(OptimizerConfig):
    """LAMB (arXiv 1904.00962): AdamW with the update of each tensor scaled to the norm of its weights."""

    kind: Literal["lamb"]
    beta1: Rate = Field(description="Decay rate of the first moment.")
    beta2: Rate = Field(description="Decay rate of the second moment.")
    eps: float = Field(gt=0.0, description="Added to the square root of the second moment.")


class WarmupConfig(Frozen):
    warmup: float = Field(ge=0.0, description="Length of the linear warm-up.")
    warmup_unit: Literal["epochs", "steps"] = Field(description="Unit of warmup.")
    warmup_from: float = Field(ge=0.0, description="Learning rate at the first step of the warm-up.")


class CosineSchedule(WarmupConfig):
    """Linear warm-up, then a half cosine from optimizer.lr to final_lr."""

    kind: Literal["cosine"]
    final_lr: float = Field(ge=0.0, description="Final learning rate.")
    begins: Literal["after_warmup", "at_start"] = Field(
        description="Where the cosine begins; at_start: beneath the warm-up, which hides its first part (cvnets)."
    )
    changes_every: Literal["step", "epoch"] = Field(description="How often the cosine is evaluated.")


class ConstantSchedule(WarmupConfig):
    """Linear warm-up, then optimizer.lr."""

    kind: Literal["constant"]


class StepSchedule(WarmupConfig):
    """Linear warm-up, then optimizer.lr multiplied by factor at each milestone."""

    kind: Literal["step"]
    milestones: Annotated[tuple[float, ...], Field(strict=False)] = Field(
        description="Epochs after which the rate drops."
    )
    factor: float = Field(gt=0.0, lt=1.0, description="Factor applied at each drop.")


class PolynomialSchedule(WarmupConfig):
    """Linear warm-up, then from optimizer.lr to final_lr as (1 - t) ** power."""

    kind: Literal["polynomial"]
    final_lr: float = Field(ge=0.0, description="Final learning rate.")
    power: float = Field(gt=0.0, description="Exponent of the decay; 1 is linear.")


class OneCycleSchedule(Frozen):
    """One cycle (arXiv 1708.07120): a cosine up to optimizer.lr, a cosine down."""

    kind: Literal["one_cycle"]
    rising: float = Field(gt=0.0, lt=1.0, description="Share of the steps during which the learning rate rises.")
    initial_lr: float = Field(ge=0.0, description="Learning rate at the first step.")
    final_lr: float = Field(ge=0.0, description="Final learning rate.")


class BucketConfig(Frozen):
    """One shape of multi-scale batches."""

    image_size: int = Field(ge=32, le=4096, description="Side length of the images, in pixels.")
    global_batch_size: int = Field(ge=1, description="Images per update, over all devices.")


class TrainConfig(Frozen):
    """The training loop."""

    epochs: int = Field(ge=1, description="Passes over the training images.")
    max_steps: Annotated[int, Field(ge=1)] | None = Field(
        description="Stop after this many steps; the schedule still spans all epochs. null: no limit."
    )
    global_batch_size: int = Field(
        ge=1,
        description="Images per update, over all devices; with buckets, it only scales lr.",
    )
    accumulation: int = Field(
        ge=1, description="Micro-batches accumulated into one update; the batch of a device is derived."
    )
    buckets: Annotated[tuple[BucketConfig, ...], Field(strict=False)] = Field(
        description="Multi-scale training (section 3.2 of the paper): shapes, one for each step; [] disables it."
    )
    label_smoothing: Rate = Field(description="Share of the target that is spread over all classes.")
    clip_norm: Annotated[float, Field(gt=0.0)] | None = Field(
        description="Maximum global gradient norm, after the reduction over devices; null does not clip."
    )
    clip_value: Annotated[float, Field(gt=0.0)] | None = Field(
        description="Maximum absolute value of a gradient, after the reduction over devices; null does not clip."
    )
    ema_momentum: Annotated[float, Field(gt=0.0, lt=1.0)] | None = Field(
        description="Share of the new weights in their moving average, at each step; null keeps no average."
    )
    freeze: Strings = Field(description="Patterns of parameters that are not trained, such as stem.* or stages.*")
    activations: Literal["fp32", "bf16"] = Field(
        description="How the fused kernels keep the feature maps of convolutions for the backward pass: as they are, or"
        " rounded to bf16, in half the memory."
    )
    log_every_steps: int = Field(ge=1, description="Steps between journal entries; each entry waits for the device.")
    eval_every_epochs: int = Field(ge=1, description="Epochs between evaluations; the last epoch is always evaluated.")
    eval_batch_size: int = Field(ge=1, description="Images per evaluation step, per device.")
    checkpoint_every_steps: Annotated[int, Field(ge=1)] | None = Field(
        description="Steps between checkpoints, besides the one at each evaluation; null writes no others."
    )
    keep_last: int = Field(ge=2, description="Newest checkpoints to keep; at least two, since one may be torn.")
    keep_best: int = Field(ge=1, description="Best checkpoints to keep.")
    max_restarts: int = Field(ge=0, le=1000, description="Automatic restarts after failures that may be transient.")


class CheckpointConfig(Frozen):
    checkpoint: str = Field(
        min_length=1, description="A .safetensors file of mvit, or a run (folder, short id or MLflow run id): its best."
    )
    weights: Literal["best", "raw", "ema"] = Field(
        description="Which weights of the checkpoint; best: those that were better when it was written."
    )


class RandomInit(Frozen):
    """Initial weights drawn from the seed."""

    kind: Literal["random"]


class WeightsInit(CheckpointConfig):
    """Fine-tuning: initial weights from a checkpoint; the head is new if the number of classes differs."""

    kind: Literal["weights"]


class Fp32Precision(Frozen):
    """Everything in float32 (O0)."""

    kind: Literal["fp32"]


class AutoLossScale(Frozen):
    """In fp16, a dynamic scale from 1024, doubled after 2000 steps without overflow; none in fp32 and bf16."""

    kind: Literal["auto"]


class FixedLossScale(Frozen):
    """A constant factor on the loss; fp16 only."""

    kind: Literal["fixed"]
    value: float = Field(ge=1.0, le=2.0**60, description="Factor on the loss, by which gradients are divided.")


class DynamicLossScale(Frozen):
    """A factor on the loss that shrinks after an overflow and grows after enough steps without one; fp16 only."""

    kind: Literal["dynamic"]
    initial: float = Field(ge=1.0, le=2.0**60, description="Initial factor on the loss.")
    factor: float = Field(gt=1.0, description="Factor by which the scale shrinks and grows.")
    growth_steps: int = Field(ge=1, description="Steps without overflow after which the scale grows.")


FP16_LOSS_SCALE = DynamicLossScale(kind="dynamic", initial=1024.0, factor=2.0, growth_steps=2000)
"""What `auto` means in fp16: MindCV's choice."""

Level = Literal["O1", "O2", "O3"]
LEVELS = "In half precision: O1 convolutions and matrix products, O2 all but normalisation, O3 the whole network."


class Fp16Precision(Frozen):
    """The network in float16, as far as level says; weights, loss and optimizer in float32."""

    kind: Literal["fp16"]
    level: Level = Field(description=LEVELS)


class Bf16Precision(Frozen):
    """The network in bfloat16, as far as level says, the rest in float32; Ascend only."""

    kind: Literal["bf16"]
    level: Level = Field(description=LEVELS)


class _Machines(Frozen):
    """What a topology has on several machines."""

    nodes: int = Field(ge=1, le=4096, description="Number of machines, which share the run folder.")
    hosts: Strings | None = Field(
        description="Their names, this machine's first: the others are started through ssh. null: by hand."
    )


class CpuTopology(_Machines):
    """Processes on the CPU of one or more machines."""

    kind: Literal["cpu"]
    workers: int = Field(
        ge=1, le=64, description="Number of processes, divided among the machines; more than one run under msrun."
    )
    threads: Annotated[int, Field(ge=1)] | None = Field(
        description="Kernel threads per process; null divides the processors evenly."
    )
    onednn_max_isa: Literal["AVX2", "default"] = Field(
        description="Instruction set that oneDNN may use; AVX2 avoids its slow reference loops for convolutions."
    )
    compile_cache: bool = Field(
        description="Keep compiled graphs, and load those that an equal run compiled; see `python -m mvit cache`."
    )


CoreRange = Annotated[str, Field(pattern=r"^(\d+-\d+|\d+(,\d+)*)$")]
"""Processors as `0-23` or `0,2`."""


class AscendTopology(_Machines):
    """Ascend cards on one or more machines."""

    kind: Literal["ascend"]
    cards_per_node: int = Field(ge=1, le=64, description="Cards per machine, one process each.")
    bind_core: bool = Field(description="Let msrun bind each process to its own processors; not for one card.")
    cores: Annotated[tuple[CoreRange, ...], Field(strict=False)] | None = Field(
        description="With bind_core: the processors of each card's process, as [0-23,24-47]; null: those msrun finds."
    )
    rank_table: str | None = Field(
        description="A rank table file for msrun: which card of which machine is which rank."
    )
    hccl_connect_s: Annotated[int, Field(ge=120, le=7200)] | None = Field(
        description="Seconds in which the cards must have found each other (HCCL_CONNECT_TIMEOUT); null: CANN's, 120."
    )
    hccl_exec_s: Annotated[int, Field(ge=68, le=17340)] | None = Field(
        description="Seconds that a card waits for the others in a collective (HCCL_EXEC_TIMEOUT); null: CANN's."
    )
    fault_tolerance: Annotated[tuple[Literal["TTP", "UCE", "HCCE", "ARF", "TSP"], ...], Field(strict=False)] = Field(
        description="Exported to MindSpore's runtime as MS_ENABLE_TFT, at O0 and O1. Whatever it does with them: a"
        " failure ends all processes, and the run goes on from its checkpoint."
    )
    jit_level: Literal["O0", "O1", "O2"] = Field(
        description="MindSpore's compilation level; O2 compiles the whole graph at once."
    )


class LimitsConfig(Frozen):
    """The limits of the stages that every task has."""

    join_s: float = Field(gt=0.0, description="From the start of the processes until all have joined.")
    data_s: float = Field(gt=0.0, description="Opening the data and building the network.")
    compile_s: float = Field(gt=0.0, description="Compiling all graphs.")
    evaluate_s: float = Field(gt=0.0, description="One full evaluation.")


class TrainLimitsConfig(LimitsConfig):
    """Seconds that a worker may spend in a stage without progress; beyond, the run is ended, naming stage and rank."""

    step_s: float = Field(gt=0.0, description="One training step, checkpoints included.")


FailureKind = Literal[
    "config", "data", "compile", "oom", "nan", "comm", "port", "checkpoint", "disk", "code", "killed", "hang"
]
"""The class of a failure."""


class MlflowTracking(Frozen):
    """Mirror the run to MLflow."""

    kind: Literal["mlflow"]
    uri: str | None = Field(
        description="Tracking store; null uses MLFLOW_TRACKING_URI, else mlflow.db in the project folder. No passwords."
    )
    experiment: str = Field(min_length=1, description="MLflow experiment.")


class NoTracking(Frozen):
    """The run folder only."""

    kind: Literal["none"]


class LocalLaunch(Frozen):
    """Execute the run now, on this machine."""

    kind: Literal["local"]


class SlurmLaunch(Frozen):
    """Submit the run as a job of Slurm, and return."""

    kind: Literal["slurm"]
    partition: JobWord | None = Field(description="Partition; null takes the cluster's default.")
    account: JobWord | None = Field(description="Account that is charged.")
    qos: JobWord | None = Field(description="Quality of service.")
    time_limit: Annotated[int, Field(ge=1)] | None = Field(
        description="Minutes after which the job is ended; null takes the partition's. The run goes on in another turn."
    )
    stop_before_s: int = Field(
        ge=30,
        le=3600,
        description="Seconds before that limit in which the run stops, with a checkpoint, and its job is queued again.",
    )
    exclude_after: Annotated[int, Field(ge=1)] | None = Field(
        description="Failures of class hang, comm or killed on one machine after which jobs that are submitted again"
        " leave it out (--exclude); null: none is left out."
    )
    options: Strings = Field(description="Further options of sbatch, as --gres=npu:8 or --exclude=n7.")


Launch = Annotated[LocalLaunch | SlurmLaunch, Field(discriminator="kind")]


class TrainTask(Frozen):
    """Train, evaluate, keep checkpoints."""

    kind: Literal["train"]


class EvaluateTask(CheckpointConfig):
    """Evaluate a checkpoint, imported weights or an exported network on the validation images."""

    kind: Literal["evaluate"]
    checkpoint: str = Field(
        min_length=1,
        description="As in other tasks, or a model.onnx or model.mindir beside the model.json of its export.",
    )
    batch_size: int = Field(ge=1, description="Images per step, per device.")


class PredictTask(CheckpointConfig):
    """Predict the classes of image files."""

    kind: Literal["predict"]
    batch_size: int = Field(ge=1, description="Images per step, per device.")
    top: int = Field(ge=1, le=100, description="Classes per image, the most probable ones.")
    output: Annotated[str, Field(pattern=r"\.(jsonl|csv)$")] | None = Field(
        description="Also write the predictions to this file, as .jsonl or .csv; null writes the run folder alone."
    )
    strict: bool = Field(description="Fail, after all images, if one of them cannot be read.")


ExportFormat = Literal["mindir", "onnx"]


class ExportTask(CheckpointConfig):
    """Write a network for other programs, and check what they compute on the validation images."""

    kind: Literal["export"]
    formats: Annotated[tuple[ExportFormat, ...], Field(strict=False, min_length=1)] = Field(
        description="mindir: for MindSpore and MindSpore Lite; onnx: for ONNX Runtime and others."
    )
    batch_size: int = Field(ge=1, description="Images per step of the check, per device.")
    dynamic_batch: bool = Field(
        description="Write a network that takes any number of images at once; false: task.batch_size of them."
    )
    tolerance: float = Field(gt=0.0, description="Largest difference of a logit from the checkpoint's.")


Mode = Literal["train", "inference"]
"""What a graph is for: a training step, or a forward pass in evaluation."""
Modes = Annotated[tuple[Mode, ...], Field(strict=False)]
MODES = "train: a whole training step, with the update; inference: the forward pass of an evaluation."
BatchSize = Annotated[int, Field(ge=1)]
ImageSize = Annotated[int, Field(ge=32, le=4096)]


class BenchmarkTask(Frozen):
    """Measure how long steps take, by batch size and resolution, on images in memory."""

    kind: Literal["benchmark"]
    modes: Modes = Field(description=MODES)
    batch_sizes: Annotated[tuple[BatchSize, ...], Field(strict=False)] = Field(
        description="Images per step, per device."
    )
    image_sizes: Annotated[tuple[ImageSize, ...], Field(strict=False)] = Field(
        description="Side lengths of the images, in pixels; each with each batch size."
    )
    warmup_steps: int = Field(ge=1, description="First steps of each shape, which are not measured.")
    repeats: int = Field(ge=3, description="Measured steps of each shape.")


class ProfileTask(Frozen):
    """Measure which operators the time of a step goes to, on images in memory."""

    kind: Literal["profile"]
    modes: Modes = Field(description=MODES)
    batch_size: BatchSize = Field(description="Images per step.")
    image_size: ImageSize = Field(description="Side length of the images, in pixels.")
    warmup_steps: int = Field(ge=1, description="First steps, which are not measured.")
    steps: int = Field(ge=1, le=100, description="Steps whose operators are recorded.")


LabelledData = Annotated[
    DigitsData | SyntheticData | ImageFolderData | MindRecordData | Cifar10Data | Cifar100Data,
    Field(discriminator="kind"),
]
Data = LabelledData | FilesData | NoiseData
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
Task = TrainTask | EvaluateTask | PredictTask | ExportTask | BenchmarkTask | ProfileTask


class CommonConfig(Frozen):
    """What every task uses."""

    name: Name = Field(description="Name of the run; its folder is runs_dir/name/time-id.")
    runs_dir: str = Field(min_length=1, description="Where run folders are created; relative to the project folder.")
    dry_run: bool = Field(description="Print the plan and exit.")
    freeze: bool = Field(
        description="Create the run folder, print its path and exit; `python -m mvit run` executes it."
    )
    verbose: bool = Field(
        description="Print also the command and the environment of each attempt, and what its processes write to logs/."
    )
    model: ModelConfig
    precision: Precision
    topology: Topology
    tracking: Tracking
    launch: Launch


class TrainRun(CommonConfig):
    """A run of task=train."""

    task: TrainTask
    data: LabelledData
    limits: TrainLimitsConfig
    seed: int = Field(ge=0, lt=2**31, description="Seed for initial weights, image order, augmentation and dropout.")
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


class _InferenceRun(CommonConfig):
    """A run that computes forward alone."""

    limits: LimitsConfig

    @property
    def max_restarts(self) -> int:
        return 0  # nothing is lost if a person starts it again


class EvaluateRun(_InferenceRun):
    """A run of task=evaluate."""

    task: EvaluateTask
    data: LabelledData

    @property
    def eval_batch_size(self) -> int:
        return self.task.batch_size


class PredictRun(_InferenceRun):
    """A run of task=predict."""

    task: PredictTask
    data: FilesData

    @property
    def eval_batch_size(self) -> int:
        return self.task.batch_size


class ExportRun(_InferenceRun):
    """A run of task=export."""

    task: ExportTask
    data: LabelledData

    @property
    def eval_batch_size(self) -> int:
        return self.task.batch_size


IMAGENET_CLASSES = 1000


class StepsRun(CommonConfig):
    """A run that measures steps of a network with random weights, on images of noise that it makes in memory."""

    limits: TrainLimitsConfig
    optimizer: Optimizer

    @property
    def data(self) -> NoiseData:
        """What stands for the data: its classes are the model's, by default those of ImageNet."""
        return NoiseData(
            kind="noise",
            classes=self.model.num_classes or IMAGENET_CLASSES,
            image_size=max(size for _, _, size in self.shapes),
            mean=(0.5, 0.5, 0.5),
            std=(0.25, 0.25, 0.25),
            channel_order="rgb",
            eval_crop_fraction=1.0,
            interpolation="bilinear",
            antialias=True,
            workers=1,
        )

    @property
    @abstractmethod
    def shapes(self) -> tuple[tuple[Mode, int, int], ...]:
        """Mode, images per device and side length of each step."""

    @property
    @abstractmethod
    def steps_of_a_shape(self) -> int:
        """Steps that each shape takes, with those of the warm-up."""

    @property
    def scaling(self) -> DynamicLossScale | None:
        """The factor on the loss, as training has it by default."""
        return FP16_LOSS_SCALE if isinstance(self.precision, Fp16Precision) else None

    @property
    def eval_batch_size(self) -> int:
        return max(batch for _, batch, _ in self.shapes)

    @property
    def max_restarts(self) -> int:
        return 0


class BenchmarkRun(StepsRun):
    """A run of task=benchmark."""

    task: BenchmarkTask

    @property
    def shapes(self) -> tuple[tuple[Mode, int, int], ...]:
        task = self.task
        return tuple(product(task.modes, task.batch_sizes, task.image_sizes))

    @property
    def steps_of_a_shape(self) -> int:
        return self.task.warmup_steps + self.task.repeats


class ProfileRun(StepsRun):
    """A run of task=profile."""

    task: ProfileTask

    @property
    def shapes(self) -> tuple[tuple[Mode, int, int], ...]:
        return tuple((mode, self.task.batch_size, self.task.image_size) for mode in self.task.modes)

    @property
    def steps_of_a_shape(self) -> int:
        return self.task.warmup_steps + 2 * self.task.steps  # without the profiler, and with it


def _task_kind(run: Any) -> Any:
    """The value of task.kind in a model or in plain values."""
    if isinstance(run, CommonConfig):
        return getattr(run, "task").kind  # noqa: B009  every member of the union has it, their common base does not
    task = cast(Mapping[str, Any], run).get("task") if isinstance(run, Mapping) else None
    return cast(Mapping[str, Any], task).get("kind") if isinstance(task, Mapping) else None


RunConfig = Annotated[
    Annotated[TrainRun, Tag("train")]
    | Annotated[EvaluateRun, Tag("evaluate")]
    | Annotated[PredictRun, Tag("predict")]
    | Annotated[ExportRun, Tag("export")]
    | Annotated[BenchmarkRun, Tag("benchmark")]
    | Annotated[ProfileRun, Tag("profile")],
    Discriminator(_task_kind),
]
"""One run: a task and the sections it uses."""

_ANY_RUN: TypeAdapter[RunConfig] = TypeAdapter(RunConfig)


def validated(raw: Mapping[str, Any]) -> RunConfig:
    """The run that plain values describe; raises pydantic's `ValidationError`."""
    return _ANY_RUN.validate_python(dict(raw))


def validated_json(text: str) -> RunConfig:
    """The same for JSON, where a list becomes a tuple."""
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
