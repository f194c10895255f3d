"""The operations of the policies against NumPy, and the rules by which they are drawn."""

from collections import Counter, defaultdict

import numpy as np
import pytest
from PIL import Image

from mvit.config import AutoAugmentPolicy, RandAugmentPolicy, TrivialAugmentPolicy
from mvit.worker.input.policies import OPERATIONS, SUB_POLICIES, apply, draw, operate
from mvit.worker.input.sampler import view_generator

FILL = (124, 116, 104)
TRIVIAL = TrivialAugmentPolicy(kind="trivialaugment")
AUTO = AutoAugmentPolicy(kind="autoaugment")
UNSIGNED = ("identity", "autocontrast", "equalize", "invert", "solarize", "posterize")


def rand(num_ops, magnitude):
    return RandAugmentPolicy(kind="randaugment", num_ops=num_ops, magnitude=magnitude)


def generator(index):
    return view_generator(1, epoch=1, index=index, view=0)


def noise(low=0, high=256):
    return np.random.default_rng(0).integers(low, high, (32, 32, 3), np.uint8)


def operated(operation, strength, *, image, wide=False):
    seen = np.asarray(operate(Image.fromarray(image), operation, strength, wide=wide, fill=FILL))
    assert seen.shape == (32, 32, 3)
    assert seen.dtype == np.uint8
    return seen


def blended(image, origin, factor):
    return (origin + factor * (image - origin)).clip(0, 255)


def moved(image, source):
    """Each pixel from the nearest one to `source` of its centre (x, y), or the fill."""
    rows, columns = np.mgrid[0:32, 0:32] + 0.5
    x, y = (np.floor(at).astype(int) for at in source(columns, rows))
    inside = (x >= 0) & (x < 32) & (y >= 0) & (y < 32)
    return np.where(inside[..., None], image[y.clip(0, 31), x.clip(0, 31)], np.array(FILL, np.uint8))


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("operation", [*OPERATIONS, "invert"])
def test_every_magnitude_of_every_operation_runs(operation, wide):
    image = noise()
    for level in range(31):
        for sign in (-1, 1):
            seen = operated(operation, sign * level / 30, image=image, wide=wide)
            if operation in UNSIGNED:
                assert (seen == operated(operation, level / 30, image=image, wide=wide)).all()
    for level in range(10):
        operated(operation, level / 9, image=image, wide=wide)


@pytest.mark.parametrize("operation", [name for name in OPERATIONS if name not in UNSIGNED])
def test_no_strength_changes_nothing(operation):
    assert (operated(operation, 0.0, image=noise()) == noise()).all()


def test_histograms_are_stretched_and_equalised_by_channel():
    image = noise(60, 180)
    assert (operated("identity", 1.0, image=image) == image).all()
    low, high = image.min((0, 1)), image.max((0, 1))
    stretched = (image - low.astype(float)) * 255 / (high.astype(float) - low)
    assert np.abs(operated("autocontrast", 1.0, image=image) - stretched).max() <= 1
    large = np.tile(image, (16, 16, 1))  # Pillow divides whole numbers of pixels, which tells in small images
    seen = np.asarray(operate(Image.fromarray(large), "equalize", 1.0, wide=False, fill=FILL))[:32, :32]
    darker = [np.searchsorted(np.sort(channel.ravel()), channel) for channel in np.moveaxis(image, -1, 0)]
    assert np.abs(seen - 255 * np.stack(darker, -1) / (32 * 32)).max() <= 4  # the brightest level becomes 255


def test_levels_are_inverted_and_cut():
    image = noise()
    assert (operated("invert", 0.0, image=image) == 255 - image).all()
    assert (operated("solarize", 1.0, image=image) == 255 - image).all()
    assert (operated("solarize", 0.3, image=image) == np.where(image < 178.5, image, 255 - image)).all()
    assert (operated("solarize", 0.0, image=image) == np.where(image < 255, image, 0)).all()
    for strength, wide, bits in ((0.0, False, 8), (0.5, False, 6), (1.0, False, 4), (1.0, True, 2), (0.5, True, 5)):
        expected = image & np.uint8(256 - (1 << (8 - bits)))
        assert (operated("posterize", strength, image=image, wide=wide) == expected).all()


@pytest.mark.parametrize(("wide", "strength"), [(False, 1.0), (False, -1.0), (True, -0.5), (True, 1.0)])
def test_enhancements_blend_by_one_plus_their_reach(wide, strength):
    image = noise()
    factor = 1 + strength * (0.99 if wide else 0.9)
    grey = np.floor(image @ np.array([0.299, 0.587, 0.114]) + 0.5)[..., None]
    smooth = image.astype(float)  # the border stays
    around = [smooth[y : y + 30, x : x + 30] for y in range(3) for x in range(3)]
    smooth[1:-1, 1:-1] = (sum(around) + 4 * smooth[1:-1, 1:-1]) / 13
    origins = {"brightness": 0.0, "contrast": np.floor(grey.mean() + 0.5), "color": grey, "sharpness": smooth}
    for operation, origin in origins.items():
        seen = operated(operation, strength, image=image, wide=wide)
        assert np.abs(seen - blended(image, origin, factor)).max() <= 2, operation


@pytest.mark.parametrize(("wide", "strength"), [(False, 1.0), (False, -0.5), (True, -0.3), (True, 0.9)])
def test_geometry_moves_the_nearest_pixels_and_fills_the_rest(wide, strength):
    image = noise()
    angle = np.deg2rad(strength * (135 if wide else 30))
    shear = strength * (0.99 if wide else 0.3)
    shift = int(strength * (32 if wide else 32 * 150 / 331))

    def turn(x, y):  # counterclockwise about the middle, rows going down
        x, y = x - 16, y - 16
        return x * np.cos(angle) - y * np.sin(angle) + 16, x * np.sin(angle) + y * np.cos(angle) + 16

    sources = {
        "rotate": turn,
        "shear_x": lambda x, y: (x + shear * y, y),
        "shear_y": lambda x, y: (x, y + shear * x),
        "translate_x": lambda x, y: (x - shift, y),
        "translate_y": lambda x, y: (x, y - shift),
    }
    for operation, source in sources.items():
        seen = operated(operation, strength, image=image, wide=wide)
        same = (seen == moved(image, source)).all(-1)
        assert same.mean() > 0.98, operation  # Pillow counts in 1/65536: halves may go to the other side
        assert (seen == FILL).all(-1).any(), operation


def test_randaugment_draws_any_of_fourteen_at_its_magnitude():
    drawn = [draw(rand(3, 9), generator(index)) for index in range(1000)]
    assert {len(sequence) for sequence in drawn} == {3}
    counts = Counter(operation for sequence in drawn for operation, _ in sequence)
    assert set(counts) == set(OPERATIONS)
    assert min(counts.values()) > 150
    assert max(counts.values()) < 280
    strengths = Counter(strength for sequence in drawn for _, strength in sequence)
    assert set(strengths) == {9 / 30, -9 / 30}
    assert 1350 < strengths[9 / 30] < 1650


def test_trivialaugment_draws_one_operation_of_any_strength():
    drawn = [draw(TRIVIAL, generator(index)) for index in range(3000)]
    assert {len(sequence) for sequence in drawn} == {1}
    counts = Counter(sequence[0][0] for sequence in drawn)
    assert set(counts) == set(OPERATIONS)
    assert min(counts.values()) > 150
    assert max(counts.values()) < 280
    levels = Counter(round(abs(sequence[0][1]) * 30) for sequence in drawn)
    assert set(levels) == set(range(31))
    assert min(levels.values()) > 55
    assert 1350 < sum(sequence[0][1] > 0 for sequence in drawn) < 1650


def test_autoaugment_draws_each_sub_policy_with_its_probabilities():
    expected = defaultdict(float)
    for first, second in SUB_POLICIES:
        for keeps_first in (True, False):
            for keeps_second in (True, False):
                kept = [one for one, keeps in ((first, keeps_first), (second, keeps_second)) if keeps]
                share = (first[1] if keeps_first else 1 - first[1]) * (second[1] if keeps_second else 1 - second[1])
                expected[tuple((name, level) for name, _, level in kept)] += share / len(SUB_POLICIES)
    number = 10_000
    seen = Counter(
        tuple((name, round(abs(strength) * 9)) for name, strength in draw(AUTO, generator(index)))
        for index in range(number)
    )
    assert set(seen) == {sequence for sequence, share in expected.items() if share > 0}
    for sequence, share in expected.items():
        assert abs(seen[sequence] - number * share) < 5 * np.sqrt(number * share) + 1, sequence


def test_the_sub_policies_are_those_of_the_paper():
    assert len(SUB_POLICIES) == 25
    assert len(set(SUB_POLICIES)) == 20
    assert SUB_POLICIES[0] == (("posterize", 0.4, 8), ("rotate", 0.6, 9))
    assert SUB_POLICIES[12] == (("equalize", 0.0, 0), ("equalize", 0.8, 0))
    assert SUB_POLICIES[18] == (("shear_x", 0.6, 5), ("equalize", 1.0, 0))
    assert {name for pair in SUB_POLICIES for name, _, _ in pair} < {*OPERATIONS, "invert"}
    assert all(0 <= level <= 9 for pair in SUB_POLICIES for _, _, level in pair)


@pytest.mark.parametrize("policy", [rand(2, 9), rand(14, 30), TRIVIAL, AUTO], ids=lambda policy: policy.kind)
def test_an_image_is_a_function_of_its_generator(policy):
    image = Image.fromarray(noise())

    def applied(index):
        return np.asarray(apply(image, policy, fill=FILL, random=generator(index)))

    views = [applied(index) for index in range(20)]
    assert all((applied(index) == views[index]).all() for index in range(20))
    assert len({one.tobytes() for one in views}) > 5
    assert (np.asarray(image) == noise()).all()
