import numpy as np
import pytest

from mvit.config import MixConfig
from mvit.plan import BucketPlan
from mvit.worker.input import mix, sampler

BUCKETS = tuple(
    BucketPlan(image_size=size, global_batch_size=batch, per_device_batch_size=batch // 2, steps_per_epoch=steps)
    for size, batch, steps in ((32, 24, 3), (48, 16, 4), (64, 8, 4))
)


def test_parts_of_a_global_batch_are_the_same_on_any_topology():
    order = sampler.epoch_order(100, seed=1, epoch=1)
    assert sorted(order.indices) == list(range(100))
    whole = order.indices[sampler.part_of(24, start=48, num_slices=1, part=0)]
    for slices in (2, 3, 4, 8):
        parts = [order.indices[sampler.part_of(24, start=48, num_slices=slices, part=part)] for part in range(slices)]
        assert (np.concatenate(parts) == whole).all()


def test_the_order_is_another_one_in_each_epoch_and_for_each_seed():
    first = sampler.epoch_order(100, seed=1, epoch=1).indices
    assert (sampler.epoch_order(100, seed=1, epoch=1).indices == first).all()
    assert (sampler.epoch_order(100, seed=1, epoch=2).indices != first).any()
    assert (sampler.epoch_order(100, seed=2, epoch=1).indices != first).any()


def test_repeated_augmentation_gives_views_of_a_sample_in_a_row_and_keeps_the_epochs_length():
    order = sampler.epoch_order(100, seed=1, epoch=1, repeats=3)
    assert len(order.indices) == 100
    assert (order.indices[0:3] == order.indices[0]).all()
    assert list(order.views[:4]) == [0, 1, 2, 0]
    assert len(set(order.indices)) == 34
    assert len({*zip(order.indices, order.views, strict=True)}) == 100


def test_each_view_of_each_sample_has_random_numbers_of_its_own():
    drawn = {
        sampler.view_generator(seed, epoch=epoch, index=index, view=view).integers(1 << 62)
        for seed in (1, 2)
        for epoch in (1, 2)
        for index in (0, 1)
        for view in (0, 1)
    }
    assert len(drawn) == 16


def test_an_epoch_has_the_planned_number_of_each_bucket_and_uses_each_place_once():
    for epoch in (1, 2):
        slices = sampler.epoch_slices(BUCKETS, seed=1, epoch=epoch)
        assert [sum(s.bucket == b for s in slices) for b in range(3)] == [3, 4, 4]
        ends = [s.start + BUCKETS[s.bucket].global_batch_size for s in slices]
        assert [s.start for s in slices] == [0, *ends[:-1]]
    assert slices != sampler.epoch_slices(BUCKETS, seed=1, epoch=1)
    assert slices == sampler.epoch_slices(BUCKETS, seed=1, epoch=2)


def test_one_bucket_is_a_plain_epoch():
    slices = sampler.epoch_slices(BUCKETS[:1], seed=1, epoch=1)
    assert [s.start for s in slices] == [0, 24, 48]


def draws(config, count=1000):
    return np.stack([mix.draw(config, seed=1, step=step, part=0, image_size=64) for step in range(count)])


def test_batches_are_mixed_with_the_asked_probability_and_share():
    config = MixConfig(probability=0.6, mixup_alpha=0.8, cutmix_alpha=1.0, cutmix_share=0.25)
    drawn = draws(config)
    unmixed = (drawn == mix.UNMIXED).all(1)
    cut = (drawn[:, 2] > drawn[:, 1]) & ~unmixed
    assert unmixed.mean() == pytest.approx(0.4, abs=0.05)
    assert cut.mean() == pytest.approx(0.6 * 0.25, abs=0.04)
    blended = drawn[~unmixed & ~cut]
    assert (blended[:, 0] == blended[:, 5]).all()
    assert ((blended[:, 0] >= 0) & (blended[:, 0] <= 1)).all()
    assert blended[:, 0].mean() == pytest.approx(0.5, abs=0.05)
    assert blended[:, 0].var() == pytest.approx(1 / (4 * (2 * 0.8 + 1)), abs=0.02)  # of Beta(a, a)


def test_a_cut_box_stays_inside_and_its_area_is_what_the_label_loses():
    drawn = draws(MixConfig(probability=1.0, mixup_alpha=0.0, cutmix_alpha=1.0, cutmix_share=1.0))
    _, top, bottom, left, right, kept = drawn.T
    assert (drawn[:, 0] == 1).all()
    assert ((top >= 0) & (bottom <= 64) & (left >= 0) & (right <= 64)).all()
    np.testing.assert_allclose(kept, 1 - (bottom - top) * (right - left) / 64**2, atol=1e-6)
    assert 0.5 < kept.mean() < 0.75  # Beta(1, 1) has 0.5; boxes are cut off at the border


def test_a_mixing_is_a_function_of_seed_step_and_part():
    config = MixConfig(probability=1.0, mixup_alpha=0.8, cutmix_alpha=1.0, cutmix_share=0.5)

    def draw(seed, step, part):
        return tuple(mix.draw(config, seed=seed, step=step, part=part, image_size=64))

    assert draw(1, 2, 3) == draw(1, 2, 3)
    assert len({draw(1, 2, 3), draw(2, 2, 3), draw(1, 3, 3), draw(1, 2, 4)}) == 4
