"""Images as a served model takes them, and what it refuses."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from mvit.config import ImagesConfig
from mvit.plan import KernelsPlan
from mvit.served_model import ServedModel, read_about, write_about

pytestmark = pytest.mark.mindspore


@pytest.fixture
def served(configured):
    config = configured("data.image_size=32", "data.eval_crop_fraction=0.875")
    return ServedModel(
        model=config.model,
        images=ImagesConfig(**{key: getattr(config.data, key) for key in ImagesConfig.model_fields}),
        precision=config.precision,
        kernels=KernelsPlan(isa=None, reason="", activations="fp32"),
        threads=1,
        onednn_max_isa="AVX2",
        batch_size=4,
        class_names=("cat", "猫"),
    )


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)


def png(pixels):
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


def test_what_is_written_about_a_model_is_read(served, tmp_path):
    write_about(tmp_path, served)
    assert read_about(tmp_path) == served


def test_bytes_base64_and_arrays_are_the_same_view(served, pixels):
    from mvit.worker.input.transforms import center
    from mvit.worker.serve import pixels_of

    expected = center(
        Image.fromarray(pixels),
        size=32,
        fraction=0.875,
        interpolation=served.images.interpolation,
        antialias=served.images.antialias,
    )
    encoded = png(pixels)
    for image in (encoded, base64.b64encode(encoded).decode(), pixels, pixels.tolist(), pixels.astype(np.int64)):
        assert (pixels_of(image, served) == expected).all()


def test_an_array_of_the_networks_size_is_taken_as_it_is(served, pixels):
    from mvit.worker.serve import pixels_of

    assert (pixels_of(pixels[:32, :32], served) == pixels[:32, :32]).all()


@pytest.mark.parametrize(
    "image",
    [
        "no base64!",
        b"no image",
        np.zeros((4, 4)),
        np.zeros((4, 4, 3), np.float32),
        np.full((4, 4, 3), 256),
        [[1, 2]],
        None,
    ],
    ids=["text", "bytes", "grey", "floats", "too large", "a list", "nothing"],
)
def test_what_is_no_image_is_refused(served, image):
    from mvit.worker.serve import pixels_of

    with pytest.raises((ValueError, OSError)):
        pixels_of(image, served)
