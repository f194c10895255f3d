"""Predictions: what is kept of an evaluation, and how well its confidence fits."""

import numpy as np
import pytest

from mvit.rundir.predictions import BINS, Predictions, calibration_error, read_predictions, write_predictions


def of_confidence(*confidences, hits):
    """Two classes; the first one is predicted, so sure."""
    p = np.array(confidences)
    logits = np.log(np.stack([p, 1.0 - p], axis=1)).astype(np.float32)
    return Predictions(logits, np.where(hits, 0, 1).astype(np.int32))


def test_what_is_written_is_read(tmp_path):
    kept = of_confidence(0.9, 0.6, hits=[True, False])
    write_predictions(tmp_path / "p.npz", kept)
    found = read_predictions(tmp_path / "p.npz")
    assert (found.logits == kept.logits).all()
    assert (found.labels == kept.labels).all()
    assert found.logits.dtype == np.float32
    assert [file.name for file in tmp_path.iterdir()] == ["p.npz"]


def test_a_damaged_file_says_so(tmp_path):
    path = tmp_path / "p.npz"
    write_predictions(path, of_confidence(0.9, hits=[True]))
    whole = path.read_bytes()
    for content in (whole[:40], b"no archive", b"", whole[:100] + b"x" + whole[101:]):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="p.npz"):
            read_predictions(path)


def test_the_calibration_error_is_the_distance_of_confidence_and_accuracy():
    # 0.9: three of four are right, |0.9 - 0.75|; 0.6: none of one, |0.6 - 0|.
    found = of_confidence(0.9, 0.9, 0.9, 0.9, 0.6, hits=[True, True, True, False, False])
    assert calibration_error(found.reliability()) == pytest.approx(100.0 * (4 * 0.15 + 0.6) / 5, rel=1e-6)
    assert found.reliability().shape == (3, BINS)


def test_certainty_falls_into_the_last_bin():
    sure = Predictions(np.array([[1000.0, 0.0]], np.float32), np.array([0], np.int32))
    assert sure.reliability()[:, -1].tolist() == [1.0, 1.0, 1.0]
    assert calibration_error(sure.reliability()) == 0.0


def test_no_images_have_no_error():
    empty = Predictions(np.zeros((0, 3), np.float32), np.zeros(0, np.int32))
    assert calibration_error(empty.reliability()) == 0.0
