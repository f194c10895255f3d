"""Crop, flip, jitter and erasing against references in NumPy and Pillow, and what the draws depend on."""

import io
import subprocess
import sys
from dataclasses import dataclass

import numpy as np
import pytest
from PIL import Image

from mvit.config import AugmentConfig, ColorJitterConfig, CropConfig, ErasingConfig
from mvit.worker.input.decode import to_rgb
from mvit.worker.input.sampler import view_generator
from mvit.worker.input.transforms import augment, center, decode_for, erase, jitter, random_crop
from tests.conftest import CHECKOUT, raw_config

pytestmark = pytest.mark.mindspore

MEAN = (0.485, 0.456, 0.406)
PRESETS = sorted(path.stem for path in (CHECKOUT / "conf/augment").glob("*.yaml"))
CROP = {"scale": [0.08, 1.0], "ratio": [0.75, 1.3333]}
STILL = {"brightness": 0.0, "contrast": 0.0, "saturation": 0.0, "hue": 0.0}


@dataclass(frozen=True)
class Recipe:
    """What a training view depends on, of the sections augment and data."""

    augment: AugmentConfig
    interpolation: str = "bilinear"
    antialias: bool = False


def recipe(*, interpolation="bilinear", antialias=False, **changes):
    none = raw_config("augment=none")["augment"]
    return Recipe(AugmentConfig.model_validate({**none, **changes}), interpolation, antialias)


def preset(name):
    return Recipe(AugmentConfig.model_validate(raw_config(f"augment={name}")["augment"]), antialias=name != "mindcv")


def generator(index, *, seed=1, epoch=1, view=0):
    return view_generator(seed, epoch=epoch, index=index, view=view)


def view(picture, config, index=0, *, size=32, mean=MEAN, **key):
    resize = {"interpolation": config.interpolation, "antialias": config.antialias}
    return augment(picture, config.augment, size=size, mean=mean, random=generator(index, **key), **resize)


def noise(height, width, low=0, high=256):
    return np.random.default_rng(0).integers(low, high, (height, width, 3), np.uint8)


def scenery(height, width, *, patch=16):
    """Coloured patches that flow into one another: smooth enough to survive JPEG."""
    coarse = Image.fromarray(noise(height // patch + 1, width // patch + 1))
    return coarse.resize((width, height), Image.Resampling.BICUBIC)


def encoded(picture, kind="JPEG", **options):
    """The picture as a file that is opened and not decoded."""
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return Image.open(io.BytesIO(file.getvalue()))


def bilinear(image, shape, *, antialias):
    """A triangle around each centre, which reaches one step if it filters, else one pixel: (H, W, 3) -> (*shape, 3)."""

    def weights(length, size):
        step = length / size
        width = max(step, 1.0) if antialias else 1.0
        at = (np.arange(size) + 0.5) * step - 0.5
        at = at if antialias else at.clip(0, length - 1)  # OpenCV repeats the border
        found = (1 - np.abs(at[:, None] - np.arange(length)) / width).clip(0)
        return found / found.sum(1, keepdims=True)

    rows, columns = weights(image.shape[0], shape[0]), weights(image.shape[1], shape[1])
    return np.einsum("yh,xw,hwc->yxc", rows, columns, image.astype(float), optimize=True)


def hsv(image):
    image = image.astype(float)
    value, chroma = image.max(-1), image.max(-1) - image.min(-1)
    red, green, blue = np.moveaxis(image, -1, 0)
    with np.errstate(all="ignore"):
        hue = np.select([value == red, value == green], [(green - blue) / chroma, 2 + (blue - red) / chroma], 0.0)
        hue = np.where((value != red) & (value != green), 4 + (red - green) / chroma, hue)
    return np.where(chroma == 0, 0, hue) / 6 % 1, chroma, value


def turned(image, turns):
    """The image with its hue turned, in exact arithmetic."""
    hue, chroma, value = hsv(image)
    channels = [(n + 6 * (hue + turns)) % 6 for n in (5, 3, 1)]
    return np.stack([value - chroma * np.minimum(k, 4 - k).clip(0, 1) for k in channels], -1)


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_gives_bytes_of_the_size_asked(name):
    config = preset(name)
    for index in range(20):
        image = view(scenery(90, 120), config, index, size=48)
        row = np.zeros((48, 48, 3), np.uint8)
        row[...] = image
        assert image.shape == (48, 48, 3)
        assert image.dtype == np.uint8
        assert image.flags.c_contiguous


@pytest.mark.parametrize("name", [name for name in PRESETS if name != "none"])
def test_pixels_are_a_function_of_seed_epoch_index_and_view(name):
    config = preset(name)
    picture = Image.fromarray(noise(90, 120))
    np.random.seed(0)
    image = view(picture, config, 5)
    np.random.seed(1)
    assert (view(picture, config, 5) == image).all()
    for other in ({"index": 6}, {"index": 5, "seed": 2}, {"index": 5, "epoch": 2}, {"index": 5, "view": 1}):
        assert (view(picture, config, **other) != image).any()


def test_what_filters_and_jitters_not_does_not_load_mindspore():
    program = """
import sys
import numpy as np
from PIL import Image
from mvit.worker.input.transforms import augment, center
from tests.worker.test_transforms import preset, view
for name in ("cvnets", "randaugment", "trivialaugment", "autoaugment", "mixup_cutmix"):
    view(Image.new("RGB", (80, 60)), preset(name))
center(Image.new("RGB", (80, 60)), size=32, fraction=0.9, interpolation="bilinear", antialias=True)
sys.exit("mindspore" in sys.modules)
"""
    subprocess.run([sys.executable, "-c", program], cwd=CHECKOUT, check=True, timeout=60)


def test_a_random_crop_keeps_its_ranges_and_stays_inside():
    config = CropConfig(scale=(0.2, 0.9), ratio=(0.75, 1.25))
    boxes = np.array([random_crop((60, 80), config, generator(index)) for index in range(1000)])
    top, left, height, width = boxes.T
    assert (top >= 0).all()
    assert (left >= 0).all()
    assert (top + height <= 60).all()
    assert (left + width <= 80).all()
    area, ratio = height * width / 4800, width / height
    assert 0.19 < area.min() < 0.22
    assert 0.80 < area.max() < 0.92
    assert 0.72 < ratio.min() < 0.77
    assert 1.22 < ratio.max() < 1.30


def test_a_crop_that_never_fits_is_the_largest_in_the_centre():
    config = CropConfig(scale=(1.0, 1.0), ratio=(1.0, 1.0))
    assert random_crop((60, 80), config, generator(0)) == (0, 10, 60, 60)
    assert random_crop((60, 80), CropConfig(scale=(1.0, 1.0), ratio=(2.0, 2.0)), generator(0)) == (10, 0, 40, 80)


@pytest.mark.parametrize("antialias", [False, True])
@pytest.mark.parametrize("side", [24, 96])
def test_a_crop_is_resized_with_or_without_a_filter(antialias, side):
    image = noise(side, side)
    config = recipe(crop={"scale": [1.0, 1.0], "ratio": [1.0, 1.0]}, antialias=antialias)
    seen = view(Image.fromarray(image), config)
    assert np.abs(seen - bilinear(image, (32, 32), antialias=antialias)).max() <= 1.01
    if side > 32:
        assert np.abs(seen - bilinear(image, (32, 32), antialias=not antialias)).max() > 20


@pytest.mark.parametrize("antialias", [False, True])
def test_the_crop_drawn_is_the_crop_taken(antialias):
    """A picture whose red is x and whose green is y tells where its crop was."""
    rows, columns = np.mgrid[0:120, 0:160]
    picture = Image.fromarray(np.stack([columns, rows, 0 * rows], -1).astype(np.uint8))
    config = recipe(crop=CROP, antialias=antialias)
    for index in range(50):
        keys = generator(index).integers(0, 2**64, (4, 2), np.uint64)
        random = np.random.Generator(np.random.Philox(key=keys[0]))
        assert config.augment.crop is not None
        top, left, height, width = random_crop((120, 160), config.augment.crop, random)
        image = view(picture, config, index)
        assert image[..., 0].mean() == pytest.approx(left + (width - 1) / 2, abs=1.0)
        assert image[..., 1].mean() == pytest.approx(top + (height - 1) / 2, abs=1.0)


@pytest.mark.parametrize("antialias", [False, True])
@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic"])
def test_every_interpolation_keeps_a_smooth_picture(antialias, interpolation):
    picture = Image.fromarray(np.mgrid[0:96, 0:96].sum(0).astype(np.uint8)).convert("RGB")
    config = recipe(crop={"scale": [1.0, 1.0], "ratio": [1.0, 1.0]}, interpolation=interpolation, antialias=antialias)
    expected = (np.mgrid[0:32, 0:32].sum(0) * 3 + 2)[..., None]
    assert np.abs(view(picture, config)[2:-2, 2:-2] - expected[2:-2, 2:-2]).max() <= 2


def test_a_flip_has_the_asked_probability():
    image = noise(16, 16)
    picture = Image.fromarray(image)
    config = recipe(horizontal_flip=0.3)
    views = [view(picture, config, index, size=16) for index in range(1000)]
    flipped = sum(bool((seen == image[:, ::-1]).all()) for seen in views)
    as_it_was = sum(bool((seen == image).all()) for seen in views)
    assert flipped + as_it_was == 1000
    assert 250 < flipped < 350


def test_other_augmentations_do_not_move_the_crop_or_the_flip():
    """Black and white blocks, nearest: whatever the brightness, the same pixels are black."""
    blocks = np.kron(np.random.default_rng(0).integers(0, 2, (12, 16)), np.ones((5, 5))) * 200
    picture = Image.fromarray(blocks.astype(np.uint8)).convert("RGB")
    base = {"crop": CROP, "interpolation": "nearest", "horizontal_flip": 0.5}
    erasing = {"probability": 1.0, "scale": [0.02, 0.1], "ratio": [0.5, 2.0], "fill": "mean"}
    for index in range(50):
        plain = view(picture, recipe(**base), index)
        jittered = view(picture, recipe(**base, color_jitter=STILL | {"brightness": 0.4}), index)
        assert ((jittered > 0) == (plain > 0)).all()
        erased = view(picture, recipe(**base, erasing=erasing), index, mean=(0.5, 0.5, 0.5))
        outside = (erased != 128).any(-1)
        assert (erased[outside] == plain[outside]).all()
        both = view(
            picture,
            recipe(**base, erasing=erasing, color_jitter=STILL | {"brightness": 0.4}),
            index,
            mean=(0.5, 0.5, 0.5),
        )
        assert ((both > 0)[outside] == (plain > 0)[outside]).all()


@pytest.mark.parametrize(("antialias", "mean", "most"), [(False, 0.0, 0), (True, 0.6, 4)])
def test_a_jpeg_of_four_times_the_size_gives_nearly_the_pixels_of_the_full_decode(antialias, mean, most):
    config = recipe(crop={"scale": [1.0, 1.0], "ratio": [1.0, 1.0]}, antialias=antialias)
    whole = encoded(scenery(513, 515, patch=64), quality=92)
    whole.load()
    picture = encoded(scenery(513, 515, patch=64), quality=92)
    difference = np.abs(view(picture, config, size=128).astype(int) - view(whole, config, size=128))
    # Without a filter, it is decoded whole: a small decode would be one.
    assert picture.size == ((129, 129) if antialias else (515, 513))
    assert difference.mean() <= mean
    assert difference.max() <= most


def test_a_jpeg_is_decoded_as_small_as_its_crop_allows():
    picture = scenery(401, 503)
    config = CropConfig(scale=(0.02, 1.0), ratio=(0.75, 1.33))
    reductions = set()
    for index in range(100):
        top, left, height, width = random_crop((401, 503), config, generator(index))
        box = (left, top, left + width, top + height)
        decoded, scaled = decode_for(encoded(picture), box, size=48)
        reduction = round(503 / decoded.width)
        reductions.add(reduction)
        assert decoded.size == (-(-503 // reduction), -(-401 // reduction))
        assert scaled == tuple(edge / reduction for edge in box)
        sides = (scaled[2] - scaled[0], scaled[3] - scaled[1])
        assert reduction == 1 or min(sides) >= 48
        assert reduction == 8 or min(sides) < 96
        assert scaled[2] <= decoded.width
        assert scaled[3] <= decoded.height
    assert reductions == {1, 2, 4, 8}


def test_only_a_jpeg_that_is_not_decoded_is_decoded_small():
    box = (10.0, 10.0, 490.0, 390.0)
    assert decode_for(encoded(scenery(401, 503), "PNG"), box, size=48)[0].size == (503, 401)
    assert decode_for(scenery(401, 503), box, size=48) == (scenery(401, 503), box)


@pytest.mark.parametrize("antialias", [False, True])
@pytest.mark.parametrize(("mode", "kind"), [("L", "JPEG"), ("CMYK", "JPEG"), ("L", "PNG"), ("I;16", "PNG")])
def test_pictures_of_other_modes_work(mode, kind, antialias):
    if mode == "I;16":
        deep = np.asarray(scenery(90, 120).convert("L")).astype(np.uint16) * 257
        picture = Image.fromarray(deep)
    else:
        picture = scenery(90, 120).convert(mode)
    assert encoded(picture, kind).mode == mode
    config = recipe(crop={"scale": [0.9, 1.0], "ratio": [1.2, 1.4]}, antialias=antialias)
    decoded = to_rgb(encoded(picture, kind))
    for size, most in ((64, 0), (24, 25)):  # at 24, a JPEG is decoded at a half
        image = view(encoded(picture, kind), config, size=size)
        assert image.shape == (size, size, 3)
        assert np.abs(image - view(decoded, config, size=size).astype(float)).mean() <= most
        middle = center(encoded(picture, kind), size=size, fraction=0.9, interpolation="bilinear", antialias=antialias)
        assert middle.shape == (size, size, 3)


def jittered(image, **changes):
    config = ColorJitterConfig.model_validate(STILL | changes)
    return [jitter(image, config, generator(index)).astype(float) for index in range(200)]


def grey(image):
    return image @ np.array([0.299, 0.587, 0.114])


@pytest.mark.parametrize("kind", ["brightness", "contrast", "saturation"])
def test_colours_change_by_a_factor_of_their_range(kind):
    image = noise(24, 24)
    origin = {
        "brightness": np.zeros((24, 24, 1)),
        "contrast": np.full((24, 24, 1), np.floor(grey(image).mean() + 0.5)),
        "saturation": grey(image).round()[..., None],
    }[kind]
    reach = image - origin
    factors = []
    for seen in jittered(image, **{kind: 0.4}):
        inside = (seen > 0) & (seen < 255)
        factors.append(((seen - origin) * reach)[inside].sum() / (reach**2)[inside].sum())
        expected = (origin + factors[-1] * reach).clip(0, 255)
        assert np.abs(seen - expected).max() < 2
    assert 0.595 < min(factors) < 0.62
    assert 1.38 < max(factors) < 1.405
    assert np.mean(factors) == pytest.approx(1.0, abs=0.05)


def test_the_hue_turns_and_nothing_else():
    """The operator's hue has 255 steps: what that does to a channel grows with the chroma, here up to 120."""
    image = noise(24, 24, 80, 200)
    hues = []
    for seen in jittered(image, hue=0.3):
        strong = hsv(image)[1] > 60
        turn = np.exp(2j * np.pi * (hsv(seen)[0] - hsv(image)[0]))[strong].mean()
        hues.append(np.angle(turn) / 2 / np.pi)
        difference = np.abs(seen - turned(image, hues[-1]))
        assert difference.max() < 7
        assert difference.mean() < 1.0
    assert -0.305 < min(hues) < -0.28
    assert 0.28 < max(hues) < 0.305


def test_changes_of_colour_come_in_random_order():
    """Half black, half white: more brightness and less contrast keep the sum of both only in that order."""
    image = np.zeros((8, 8, 3), np.uint8)
    image[4:] = 255
    seen = np.array([(one.min(), one.max()) for one in jittered(image, brightness=1.0, contrast=1.0)])
    seen = seen[seen[:, 0] > 20]
    assert (np.abs(seen.sum(1) - 255) <= 3).sum() > 10
    assert (seen.sum(1) > 275).sum() > 10


def test_an_erased_rectangle_keeps_its_ranges_and_its_probability():
    config = ErasingConfig(probability=0.6, scale=(0.02, 0.33), ratio=(0.3, 3.3), fill="mean")
    image = np.zeros((64, 80, 3), np.uint8)
    areas, ratios, corners = [], [], []
    for index in range(1000):
        seen = erase(image, config, fill=(9, 8, 7), random=generator(index))
        where = seen.any(-1)
        if where.any():
            rows, columns = np.flatnonzero(where.any(1)), np.flatnonzero(where.any(0))
            height, width = len(rows), len(columns)
            assert where.sum() == height * width
            assert (seen[where] == (9, 8, 7)).all()
            areas.append(height * width / image[..., 0].size)
            ratios.append(height / width)
            corners.append((rows[0], columns[0], 64 - rows[-1], 80 - columns[-1]))
    assert not image.any()
    assert 550 < len(areas) < 650
    assert 0.015 < min(areas) < 0.03
    assert 0.31 < max(areas) < 0.34
    assert np.mean(areas) == pytest.approx(0.175, abs=0.02)
    assert 0.27 < min(ratios) < 0.36
    assert 2.8 < max(ratios) < 3.6
    assert np.mean(np.log(ratios)) == pytest.approx(0.0, abs=0.12)
    assert np.min(corners) <= 1
    assert np.ptp(corners) > 50


def test_the_mean_fills_the_erased_rectangle_and_noise_differs():
    everything = {"probability": 1.0, "scale": [0.2, 0.3], "ratio": [0.9, 1.1]}
    picture = Image.new("RGB", (64, 64))
    mean = view(picture, recipe(erasing=everything | {"fill": "mean"}), size=64)
    assert {tuple(pixel) for pixel in mean.reshape(-1, 3)} == {(0, 0, 0), (124, 116, 104)}
    noisy = view(picture, recipe(erasing=everything | {"fill": "noise"}), size=64)
    filled = noisy[(mean > 0).all(-1)]
    assert filled.mean() == pytest.approx(127.5, abs=5)
    assert filled.std() == pytest.approx(73.9, abs=4)
    assert (noisy[~(mean > 0).all(-1)] == 0).all()


@pytest.mark.parametrize("antialias", [False, True])
@pytest.mark.parametrize("upright", [False, True])
def test_evaluation_resizes_the_short_side_and_crops_the_centre(antialias, upright):
    """500x375 at 256 / 0.875: 389x292, cropped from 66 and 18 (389 and 66 are halves rounded as torchvision does)."""
    picture = scenery(375, 500)
    resized = bilinear(np.asarray(picture), (292, 389), antialias=antialias)
    expected = resized[18:274, 66:322]
    if upright:
        picture, expected = picture.transpose(Image.Transpose.TRANSPOSE), expected.swapaxes(0, 1)
    image = center(picture, size=256, fraction=0.875, interpolation="bilinear", antialias=antialias)
    assert image.flags.c_contiguous
    assert np.abs(image - expected).max() <= 1.01


@pytest.mark.parametrize(("fraction", "short"), [(0.875, 292), (256 / 288, 288), (1.0, 256), (0.9, 284)])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("columns", [260, 450, 600])
def test_evaluation_equals_a_resize_and_a_crop_up_to_rounding(columns, fraction, short, interpolation):
    picture = scenery(600, columns)
    long = int(short * 600 / columns)
    left, top = round((short - 256) / 2), round((long - 256) / 2)
    resized = np.asarray(picture.resize((short, long), Image.Resampling[interpolation.upper()])).astype(int)
    image = center(picture, size=256, fraction=fraction, interpolation=interpolation, antialias=True)
    difference = np.abs(image - resized[top : top + 256, left : left + 256])
    assert difference.max() <= 2
    assert difference.mean() < 0.3, "rounding only, not a shift"


@pytest.mark.parametrize("shape", [(1, 1), (1, 5000), (5000, 1), (30, 97), (97, 97), (293, 97)])
@pytest.mark.parametrize("fraction", [0.5, 0.875, 1.0])
def test_pictures_of_any_shape_have_an_evaluation_view(shape, fraction):
    picture = Image.new("RGB", shape, "white")
    image = center(picture, size=60, fraction=fraction, interpolation="bicubic", antialias=True)
    assert image.shape == (60, 60, 3)
    assert (image == 255).all()


def test_a_picture_of_the_size_asked_is_not_touched():
    image = noise(32, 32)
    for antialias in (False, True):
        seen = center(Image.fromarray(image), size=32, fraction=1.0, interpolation="bilinear", antialias=antialias)
        assert (seen == image).all()
        assert (view(Image.fromarray(image), recipe(antialias=antialias)) == image).all()
