"""The digits as files."""

import numpy as np
import pytest
from PIL import Image

from mvit.config import DigitsData
from mvit.data.digit_files import write_digits
from mvit.errors import DatasetError
from tests.conftest import open_data, raw_config


def test_the_files_are_the_images_of_the_data_in_its_order(tmp_path):
    assert write_digits(tmp_path / "digits", size=32) == (1437, 360)
    _, val = open_data(DigitsData(**raw_config("data.image_size=32")["data"]))
    files = sorted((tmp_path / "digits/val").rglob("*.png"))
    assert [int(path.parent.name) for path in files] == val.labels.tolist()
    for index in (0, 7, 359):
        with Image.open(files[index]) as image, val.sample(index).open() as expected:
            assert np.array_equal(np.asarray(image), np.asarray(expected))


def test_a_folder_that_exists_is_left_alone(tmp_path):
    with pytest.raises(DatasetError, match="already exists"):
        write_digits(tmp_path, size=32)
    assert list(tmp_path.iterdir()) == []
