"""Predictions: the logits of an evaluation for the held-out set, in its order; what pictures are drawn from again."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mvit.files import write_bytes

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

BINS = 15
"""Bins of confidence, as in Guo et al. (arXiv 1706.04599, section 2)."""
CHUNK = 2048
"""Images whose probabilities are held at once."""


@dataclass(frozen=True, eq=False)
class Predictions:
    """What a network said of n images of k classes, and what they are."""

    logits: NDArray[np.float32]
    """float32 (n, k)"""
    labels: NDArray[np.int32]
    """int32 (n,)"""

    @classmethod
    def joined(cls, parts: Sequence[Predictions]) -> Predictions:
        """Those of several batches, one after the other."""
        import numpy as np  # here and below: commands that read no predictions do not need it

        return cls(np.concatenate([part.logits for part in parts]), np.concatenate([part.labels for part in parts]))

    def confidence(self) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """float64 (n,): the probability of the class that is predicted for each image; int64 (n,): that class."""
        import numpy as np

        classes = self.logits.argmax(axis=1)
        confidence = np.empty(len(self.labels), np.float64)
        for start in range(0, len(self.labels), CHUNK):  # all of ImageNet at once would take gigabytes
            logits = self.logits[start : start + CHUNK].astype(np.float64)
            confidence[start : start + CHUNK] = 1.0 / np.exp(logits - logits.max(axis=1, keepdims=True)).sum(axis=1)
        return confidence, classes

    def reliability(self) -> NDArray[np.float64]:
        """float64 (3, BINS): of each bin of confidence the images, the sum of their confidence, and the hits."""
        import numpy as np

        if not len(self.labels):
            return np.zeros((3, BINS))
        confidence, classes = self.confidence()
        confidence = np.nan_to_num(confidence)  # a network that diverged is refused by its loss
        bins = np.minimum((confidence * BINS).astype(np.int64), BINS - 1)
        weights = (np.ones_like(confidence), confidence, classes == self.labels)
        return np.stack([np.bincount(bins, weights=weight, minlength=BINS) for weight in weights]).astype(np.float64)


def calibration_error(reliability: NDArray[np.float64]) -> float:
    """Expected calibration error, percent: the mean distance of confidence and accuracy over the images, by bin.

    Guo et al., arXiv 1706.04599, equation 3; of what `Predictions.reliability` returns.
    """
    images, confidence, hits = reliability
    return 100.0 * float(abs(confidence - hits).sum() / max(1.0, images.sum()))


def write_predictions(path: Path, predictions: Predictions) -> None:
    """Write atomically and compressed; raises `OSError`."""
    import numpy as np

    content = io.BytesIO()
    np.savez_compressed(content, logits=predictions.logits, labels=predictions.labels)
    write_bytes(path, content.getvalue())


def read_predictions(path: Path) -> Predictions:
    """Raises `OSError`, and `ValueError` for a file that is damaged."""
    import numpy as np

    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            found = Predictions(arrays["logits"], arrays["labels"])
    except OSError:
        raise
    except Exception as error:  # of zipfile, zlib and NumPy, which have no type in common
        raise ValueError(f"{path} is damaged") from error
    if found.logits.ndim != 2 or found.labels.shape != found.logits.shape[:1]:
        raise ValueError(f"{path} is damaged: logits of {found.logits.shape}, labels of {found.labels.shape}")
    return found
