"""The picture of the confusion matrix."""

import numpy as np
import pytest
from PIL import Image

from mvit.parent.report.confusion import draw


def counts(classes: int) -> list[list[int]]:
    table = np.eye(classes, dtype=int) * 30
    table[0, -1] = 5
    return table.tolist()


@pytest.mark.mlflow
@pytest.mark.parametrize("classes", [1, 10, 30, 300])
def test_a_picture_is_drawn_for_any_number_of_classes(classes, tmp_path):
    out = tmp_path / "confusion.png"
    draw(counts(classes), [f"class {index}" for index in range(classes)], out)
    with Image.open(out) as image:
        assert image.format == "PNG"
        assert min(image.size) > 700
        colours = np.asarray(image.convert("RGB")).reshape(-1, 3)
    assert (colours == 255).all(axis=1).any()
    assert ((colours[:, 2] > 90) & (colours[:, 0] < 20)).any(), "the diagonal is dark blue"


def test_names_are_text_and_no_markup_whatever_they_hold(tmp_path):
    out = tmp_path / "confusion.png"
    draw(counts(3), ["$1 and $2^{", "日本", "x" * 500], out)
    with Image.open(out) as image:
        assert max(image.size) < 2000


def test_an_empty_evaluation_is_drawn_without_dividing_by_zero(tmp_path):
    draw([[0, 0], [0, 0]], ["a", "b"], tmp_path / "confusion.png")
    assert (tmp_path / "confusion.png").stat().st_size > 1000
