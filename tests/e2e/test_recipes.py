"""The recipes of experiments/, for a few steps on generated images: real processes, two workers.

The network is a shallow one, which compiles in a third of the time: those of the recipes differ in the model alone, see
tests/test_experiments.py, and tests/models for the networks.
"""

import json
from pathlib import Path

import pytest

from mvit.data.generated import write_image_folder
from tests.conftest import TINY, launcher

pytestmark = [pytest.mark.mindspore, pytest.mark.timeout(600)]

FEW = ("topology=cpu_2", "train.max_steps=4", "train.log_every_steps=1", "train.eval_batch_size=4", "tracking=none")
SMALL = ("data.image_size=64", "data.workers=1", *FEW)
BATCH = ("train.global_batch_size=8",)
# A bucket alone, as a bucket; several of them are below.
BUCKET = ("schedule.warmup=10", "train.buckets=[{image_size: 64, global_batch_size: 8}]")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    """Generated JPEGs in ImageNet's layout."""
    return write_image_folder(
        tmp_path_factory.mktemp("pictures") / "images", classes=3, train=32, val=9, size=(160, 120)
    )


@pytest.fixture(scope="module")
def launch(tmp_path_factory):
    return launcher(tmp_path_factory)


@pytest.mark.long
@pytest.mark.parametrize(("name", "overrides"), [("reproduce_xx_small", BATCH), ("cvnets_xx_small", BUCKET)])
def test_a_recipe_runs_on_two_workers(launch, pictures, name, overrides):
    done = launch(f"experiment={name}", f"data.root={pictures}", *SMALL, *TINY[:2], *overrides, timeout_s=560)
    assert done.code == 0, done.err + done.out
    result = done.result()
    assert result["steps"] == 4
    assert len(done.losses()) == 4
    assert (done.folder / "status" / "1.json").exists()
    logged = {key for entry in done.journal() for key in entry.get("metrics", {})}
    assert {"train/loss_scale", "train/dropped_updates", "val/acc1"} <= logged
    assert ("val/ema_acc1" in logged) == name.startswith("cvnets")
    print(f"{name}: {result['graphs']}, losses {done.losses()}")


def test_three_buckets_on_two_workers_compile_once_each_and_never_later(launch):
    buckets = "{image_size: 32, global_batch_size: 12}, {image_size: 48, global_batch_size: 8}"
    buckets = f"train.buckets=[{buckets}, {{image_size: 64, global_batch_size: 4}}]"
    done = launch(
        *(*TINY, *FEW, "data=synthetic", "data.image_size=48", "data.num_train=200", "data.num_val=16"),
        *(buckets, "train.max_steps=30", "train.epochs=2", "augment=cvnets", "train.ema_momentum=0.01"),
    )
    assert done.code == 0, done.err + done.out
    # 24 images are one step of each bucket: 8 rounds, and one more of those for which samples are left.
    plan = json.loads((done.folder / "run.json").read_text())["plan"]
    assert [bucket["steps_per_epoch"] for bucket in plan["buckets"]] == [8, 9, 8]
    assert done.result()["steps"] == 30
    assert len(done.losses()) == 30
    compiled = [entry["graph"] for entry in done.journal() if entry.get("event") == "compiled"]
    # The worker itself asserts at its end that it holds no graph beside these.
    assert compiled == ["train-32", "train-48", "train-64", "evaluate"]
    assert list(done.result()["graphs"]) == compiled
    print(
        f"3 buckets, 2 workers, 30 steps: {done.result()['graphs']}, {done.result()['compiled']} graphs compiled in all"
    )
    assert done.result()["compiled"] == 3


def test_overflows_are_dropped_counted_and_end_with_a_smaller_scale(launch):
    done = launch(
        *(*TINY, *FEW, "data=synthetic", "data.image_size=32", "data.num_train=96", "data.num_val=16"),
        # The two workers of the recipes above have a loss scale too; one compiles in half the time.
        *("topology=cpu", "train.max_steps=24", "train.epochs=2", "train.global_batch_size=8", "schedule.warmup=0"),
        *("precision=O2", "loss_scale=dynamic", f"loss_scale.initial={2.0**30}"),
    )
    assert done.code == 0, done.err + done.out
    entries = [entry["metrics"] for entry in done.journal() if "train/loss_scale" in entry.get("metrics", {})]
    dropped, scale = entries[-1]["train/dropped_updates"], entries[-1]["train/loss_scale"]
    print(f"{dropped:.0f} updates dropped, the scale went from 2^30 to {scale:g}")
    assert 5 <= dropped < 24
    assert scale == 2.0 ** (30 - dropped)
    assert ["train/grad_norm" in entry for entry in entries].count(False) == dropped


def test_fine_tuning_from_other_classes_beats_training_from_scratch_after_one_epoch(launch):
    small = (*TINY, "data.image_size=32", "tracking=none")
    pretrained = launch("data=synthetic", "data.classes=6", "train.epochs=3", "name=pretrained", *small)
    assert pretrained.code == 0, pretrained.err
    tuned = launch("experiment=finetune_digits", f"init.checkpoint={pretrained.folder}", *small)
    assert tuned.code == 0, tuned.err
    assert "new head (6 classes there, 10 here)" in tuned.out
    assert "new: head.weight, head.bias" in tuned.out
    scratch = launch("experiment=finetune_digits", "init=random", "optimizer.layer_decay=1.0", *small)
    assert scratch.code == 0, scratch.err
    accuracies = [done.result()["metrics"]["val/acc1"] for done in (tuned, scratch)]
    print(f"after one epoch: fine-tuned {accuracies[0]:.2f} %, from scratch {accuracies[1]:.2f} %")
    assert accuracies[0] > accuracies[1]


def test_averaged_weights_can_be_evaluated_and_frozen_ones_do_not_change(launch):
    small = (*TINY, "data=synthetic", "data.image_size=32", "data.num_train=96", "data.num_val=20", "tracking=none")
    small = (*small, "train.epochs=1", "train.global_batch_size=8", "train.eval_batch_size=10", "data.classes=4")
    first = launch(*small, "train.ema_momentum=0.5")
    assert first.code == 0, first.err
    metrics = first.result()["metrics"]
    best = json.loads((first.folder / "checkpoints" / "best.json").read_text())["file"]
    for which, key in (("raw", "val/acc1"), ("ema", "val/ema_acc1")):
        done = launch("task=evaluate", f"task.checkpoint={first.folder}", f"task.weights={which}", "tracking=none")
        assert done.code == 0, done.err
        assert done.result()["metrics"]["val/acc1"] == pytest.approx(metrics[key]), which
    frozen = (
        "train.freeze=['stem.*', 'stages.*']",
        "init=weights",
        f"init.checkpoint={first.folder}",
        "init.weights=raw",
    )
    second = launch(*small, *frozen, "data.classes=4", "seed=2")
    assert second.code == 0, second.err
    from safetensors.numpy import load_file

    before = load_file(first.folder / "checkpoints" / f"{best}.safetensors")
    after = load_file(next((second.folder / "checkpoints").glob("*.safetensors")))
    kept = [name for name in after if name.startswith(("stem.", "stages."))]
    assert len(kept) > 30
    assert all((after[name] == before[name]).all() for name in kept), "statistics included"
    assert (after["head.weight"] != before["head.weight"]).any()
    assert not any(name.startswith("adam_m.stem") for name in after)
    assert "M trained)" in second.out
