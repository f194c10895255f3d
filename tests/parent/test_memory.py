"""The memory that a plan says one process needs, by part."""

import math

import pytest

from mvit.data import dataset
from mvit.models.spec import count_parameters, parameter_shapes
from mvit.parent.activations import Form, evaluation_bytes, training_bytes
from mvit.parent.free_memory import FreeMemory
from mvit.parent.host import this_host
from mvit.parent.memory import estimate_memory, too_much
from mvit.parent.plan import make_plan

FUSED, BF16, PLAIN = Form(is_fused=True, kept_bytes=4), Form(is_fused=True, kept_bytes=2), Form(False, kept_bytes=4)


@pytest.fixture
def estimate(configured):
    def make(*overrides):
        config = configured("data=synthetic", *overrides)
        plan = make_plan(config, host=this_host(), facts=dataset.survey(config.data).facts)
        return estimate_memory(config, plan), plan

    return make


@pytest.mark.parametrize(("optimizer", "moments"), [("adamw", 2), ("lamb", 2), ("sgd", 1), ("lion", 1)])
def test_an_optimizer_keeps_its_moments_for_each_trained_parameter(estimate, optimizer, moments):
    memory, plan = estimate(f"optimizer={optimizer}")
    assert memory.optimizer == 4 * moments * plan.parameters
    frozen, plan = estimate(f"optimizer={optimizer}", "train.freeze=[stages.*]")
    assert frozen.optimizer == 4 * moments * plan.trained_parameters < memory.optimizer


def test_activations_grow_with_the_images_of_a_micro_batch(estimate):
    of_16, _ = estimate("train.global_batch_size=16", "train.eval_batch_size=1")
    of_32, _ = estimate("train.global_batch_size=32", "train.eval_batch_size=1")
    halves, _ = estimate("train.global_batch_size=32", "train.accumulation=2", "train.eval_batch_size=1")
    assert of_32.activations == 2 * of_16.activations
    assert halves.activations == of_16.activations
    assert halves.gradients == of_32.gradients * 3 / 2


def test_the_largest_graph_counts(estimate):
    small, _ = estimate("train.global_batch_size=2", "train.eval_batch_size=1")
    evaluation, _ = estimate("train.global_batch_size=2", "train.eval_batch_size=256")
    assert evaluation.activations > small.activations
    buckets = "train.buckets=[{image_size:64,global_batch_size:8},{image_size:128,global_batch_size:4}]"
    largest, _ = estimate("data.image_size=128", "train.global_batch_size=4", "train.eval_batch_size=1")
    assert estimate(buckets, "train.eval_batch_size=1")[0].activations == largest.activations


def test_averages_and_checkpoints_hold_the_weights_and_their_statistics(estimate):
    with_ema, plan = estimate("train.ema_momentum=0.01")
    without, _ = estimate()
    config_bytes = with_ema.weights
    assert with_ema.average == config_bytes > 4 * plan.parameters
    assert with_ema.checkpoint - without.checkpoint == 3 * with_ema.average
    assert without.average == 0


def test_feature_maps_kept_in_bf16_take_less_and_the_plain_form_takes_more(configured):
    model = configured().model
    fused, half, plain = (training_bytes(model, image_size=64, form=form) for form in (FUSED, BF16, PLAIN))
    assert fused / 2 < half < fused < plain


def test_maps_grow_with_the_area_of_the_image(configured):
    model = configured().model
    assert training_bytes(model, image_size=128, form=FUSED) == pytest.approx(
        4 * training_bytes(model, image_size=64, form=FUSED), rel=0.01
    )
    assert evaluation_bytes(model, image_size=64, form=FUSED) < training_bytes(model, image_size=64, form=FUSED) / 10


def test_the_stem_keeps_its_input_and_its_output_before_and_after_batch_norm(configured):
    """By hand, of a network that is almost nothing else."""
    least = {
        "stem_channels": 16, "channels": (1, 1, 1, 1, 1), "conv_blocks": (1, 1, 1, 1, 1), "expansion": 1,
        "features": (4, 4, 4), "hidden": (4, 4, 4), "depths": (0, 0, 0), "final_expansion": 1,
    }  # fmt: skip
    model = configured().model.model_copy(update=least)
    stem = 3 * 64 * 64 * (1 + 4) + 2 * 4 * 16 * 32 * 32
    block = 4 * 16 * 32 * 32 * 2 + 2 * 4 * 32 * 32  # the first: its two hidden maps, and its one channel twice
    scratch = 2 * 4 * 16 * 32 * 32
    dx = 4 * 16 * 32 * 32
    assert training_bytes(model, image_size=64, form=FUSED) == pytest.approx(stem + block + scratch + dx, rel=0.05)


def test_the_parts_add_up_and_are_named(estimate):
    memory, _ = estimate()
    assert memory.total == sum(vars(memory).values())
    assert memory.parts().startswith("process 615 MiB, activations ")
    assert "average" not in memory.parts()


def test_more_than_what_is_free_is_said_in_one_line(estimate):
    memory, plan = estimate("topology=cpu_2")
    free = FreeMemory(int(1.5 * memory.total), " in the control group")
    assert too_much(memory, plan, free=FreeMemory(2 * memory.total, "")) is None
    line = too_much(memory, plan, free=free)
    assert line
    assert line.endswith(" GiB free in the control group: use smaller batches or images")


def test_a_card_holds_neither_the_process_nor_its_data(estimate):
    memory, plan = estimate("topology=ascend_8", "dry_run=true")
    assert (memory.process, memory.data, memory.checkpoint, memory.fragments) == (0, 0, 0, 0)
    assert too_much(memory, plan, free=FreeMemory(1, "")) is None


def test_weights_are_all_that_the_network_has(estimate, configured):
    memory, plan = estimate()
    shapes = parameter_shapes(configured().model, num_classes=plan.num_classes)
    assert memory.weights == 4 * sum(map(math.prod, shapes.values()))
    assert memory.weights > 4 * count_parameters(configured().model, num_classes=plan.num_classes)
