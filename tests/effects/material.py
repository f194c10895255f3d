"""Material for runs in which options have effects: data, weights, and the values that types cannot suggest."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from safetensors.numpy import save_file

from mvit.config import ModelConfig
from mvit.data.mindrecord import packed_file
from mvit.models.spec import parameter_shapes
from mvit.parent.request.check import parse
from tests.conftest import raw_config
from tests.data.test_dataset import make_cifar10, make_cifar100, make_folder

CLASSES = 3
TINY = (
    "model.stem_channels=4",
    "model.channels=[4,4,4,4,4]",
    "model.conv_blocks=[1,1,1,1,1]",
    "model.expansion=2",
    "model.depths=[1,1,1]",
    "model.features=[4,4,4]",
    "model.hidden=[4,4,4]",
    "model.final_expansion=2",
)
AUGMENT = (
    "augment=mindcv",
    "augment.color_jitter.hue=0.1",
    "augment.erasing.probability=0.5",
    "augment.policy={kind: randaugment, num_ops: 2, magnitude: 9}",
    "augment.mix={probability: 0.5, mixup_alpha: 0.8, cutmix_alpha: 1.0, cutmix_share: 0.5}",
)
TRAIN = ("train.epochs=3", "train.global_batch_size=16", "train.eval_batch_size=8", "train.log_every_steps=2")


@dataclass
class Material:
    """Overrides that every run of a task has, those of a kind, those of options below a path, and other values."""

    of_task: dict[str, list[str]]
    of_kind: dict[tuple[str, str], list[str]]
    of_path: dict[str, list[str]]
    values: dict[str, Any]
    of_data: dict[str, dict[str, Any]]
    """Other values by kind of data."""


def make_material(room: Path) -> Material:
    """Write tiny data of every kind and two files of weights, and name them."""
    folders = [_image_folder(room / f"images-{number}", count=number) for number in (2, 3)]
    tens = [make_cifar10(room / f"ten-{number}", per_file=number) for number in (4, 5)]
    hundreds = [_other_hundred(make_cifar100(room / f"hundred-{number}"), number) for number in (0, 1)]
    packs = [_packed(room / f"packed-{number}", content=bytes([number])) for number in (0, 1)]
    weights = [_weights(room / f"{name}.safetensors", seed=seed) for seed, name in enumerate("ab")]
    names = room / "names"
    names.write_text("cat Felis catus\ndog Canis familiaris\n")
    bare = ["name=probe", f"runs_dir={room}/runs", *TINY]
    common = [*bare, "data.image_size=32", "data.eval_crop_fraction=0.875"]
    steps = [*bare, "task.modes=[train]", "task.warmup_steps=1"]
    roots = {"imagefolder": folders, "cifar10": tens, "cifar100": hundreds, "mindrecord": packs}
    return Material(
        of_task={
            "train": [*common, *TRAIN, *AUGMENT],
            "evaluate": [*common, f"task.checkpoint={weights[0]}", "task.batch_size=8"],
            "predict": [*common, f"task.checkpoint={weights[0]}", "task.batch_size=8", "task.top=1"],
            "export": [*common, f"task.checkpoint={weights[0]}", "task.batch_size=8", "task.tolerance=0.1"],
            "benchmark": [*steps, "task.batch_sizes=[4]", "task.image_sizes=[32]", "task.repeats=8"],
            "profile": [*steps, "task.batch_size=4", "task.image_size=32", "task.steps=2"],
        },
        of_kind={
            ("data", "synthetic"): [f"data.classes={CLASSES}", "data.num_train=48", "data.num_val=16"],
            **{("data", kind): [f"data.root={paths[0]}"] for kind, paths in roots.items()},
            ("data", "files"): [f"data.images={folders[0]}/val", "data.class_names=[ant,bee,cat]"],
            ("init", "weights"): [f"init.checkpoint={weights[0]}"],
            ("schedule", "step"): ["schedule.milestones=[1.5]"],
            # Another scale than that of the other kinds at first.
            ("loss_scale", "fixed"): ["precision=fp16", "loss_scale.value=512.0"],
            ("loss_scale", "dynamic"): ["precision=fp16", "loss_scale.growth_steps=1"],
            ("precision", "bf16"): ["topology=ascend_1"],
            ("topology", "cpu"): ["topology=cpu_2"],
        },
        of_path={
            "loss_scale.kind": ["precision=fp16"],
            "precision.kind": ["topology=ascend_1"],
            "topology.bind_core": ["topology=ascend_8"],
            "topology.cores": ["topology=ascend_8"],
            "topology.rank_table": ["topology=ascend_8"],
            "topology.hccl_connect_s": ["topology=ascend_8"],
            "topology.hccl_exec_s": ["topology=ascend_8"],
            "topology.fault_tolerance": ["topology=ascend_8"],
            "topology.hosts": ["topology.nodes=2"],
            "train.buckets.0": ["train.buckets=[{image_size: 32, global_batch_size: 8}]"],
            # Of four equal accuracies the first two are the best ones, and are not among the last two.
            "train.keep_best": ["optimizer.lr=1e-9", "train.epochs=4"],
            # So that gradients of the same images change their signs, which are what Lion sees.
            "optimizer.beta1": ["optimizer.lr=0.05"],
            "init.weights": ["init.weights=ema"],
            "task.weights": ["task.weights=ema"],
            "data.on_unreadable": [f"data.root={_torn(room / 'torn')}"],
        },
        values={
            "data.train_folder": "train2",
            "data.val_folder": "val2",
            "data.images": [str(folders[1] / "val")],
            "task.checkpoint": str(weights[1]),
            "init.checkpoint": str(weights[1]),
            "task.output": str(room / "answers.csv"),
            "task.formats": ["mindir"],
            "task.modes": ["inference"],
            "train.freeze": ["stem.*"],
            "train.buckets": [{"image_size": 64, "global_batch_size": 8}],
            "launch.partition": "npu",
            "launch.account": "team",
            "launch.qos": "high",
            "launch.options": ["--exclude=n7"],
            "topology.hosts": ["here", "there"],
            "topology.rank_table": "/etc/rank_table_16.json",
            "topology.hccl_connect_s": 600,
            "topology.hccl_exec_s": 600,
            "topology.fault_tolerance": ["UCE"],
            "topology.cores": [f"{card}" for card in range(8)],
            "tracking.uri": "sqlite:///elsewhere.db",
            "runs_dir": f"{room}/runs2",
        },
        of_data={
            kind: {"data.root": str(paths[1]), **({"data.class_names": str(names)} if kind == "imagefolder" else {})}
            for kind, paths in roots.items()
        },
    )


def _image_folder(root: Path, *, count: int) -> Path:
    """With two folders of each split: those of `train2` and `val2` have one image more in each class."""
    more = make_folder(root.with_name(f"{root.name}-more"), per_class=count + 1)
    make_folder(root, per_class=count)
    for split in ("train", "val"):
        (more / split).rename(root / f"{split}2")
    return root


def _torn(root: Path) -> Path:
    (make_folder(root) / "val" / "cat" / "0.jpg").write_bytes(b"no image")
    return root


def _other_hundred(root: Path, number: int) -> Path:
    (root / "test.bin").write_bytes(bytes([99, number]) + bytes(3072))
    return root


def _packed(root: Path, *, content: bytes) -> Path:
    """What `python -m mvit pack` makes, but for the images: they are not decoded here."""
    root.mkdir()

    def shard(split: str) -> dict[str, Any]:
        files = {name: root / f"{split}.{name}" for name in ("mindrecord", "db", "index")}
        for file in files.values():
            file.write_bytes(content)
        packed = {name: packed_file(file).model_dump() for name, file in files.items()}
        return {**packed["mindrecord"], "count": 9, "db": packed["db"], "index": packed["index"], "skipped": []}

    manifest = {"format": 1, "complete": True, "source": "images", "command": "", "fingerprint": "0" * 64}
    manifest |= {"num_shards": {"train": 1, "val": 1}, "on_unreadable": "refuse", "class_names": ["cat", "dog"]}
    (root / "manifest.json").write_text(json.dumps({**manifest, "train": [shard("train")], "val": [shard("val")]}))
    return root


def stand_in_shapes(model: ModelConfig, *, num_classes: int) -> dict[str, tuple[int, ...]]:
    """The parameters of the network that stands in for MobileViT, beside the stem that both have."""
    return {"final.dense.weight": (num_classes, model.stem_channels), "final.dense.bias": (num_classes,)}


def _weights(file: Path, *, seed: int) -> Path:
    """Weights and their averages, for MobileViT and for its stand-in."""
    model = parse(raw_config(*TINY)).model
    shapes = {**parameter_shapes(model, num_classes=CLASSES), **stand_in_shapes(model, num_classes=CLASSES)}
    random = np.random.default_rng(seed)
    names = [*shapes, *(f"ema.{name}" for name in shapes)]
    save_file({name: random.random(shapes[name.removeprefix("ema.")], np.float32) for name in names}, file)
    return file


def noise(size: tuple[int, int]) -> Image.Image:
    """A picture in colour, (width, height)."""
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8))
