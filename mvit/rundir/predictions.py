"""Predictions: the logits of an evaluation for the held-out set, in its order; what pictures are drawn from again."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mvit.files import write_bytes

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

BINS = 15
"""Bins of confidence, as in Guo et al. (arXiv 1706.04599, section 2)."""


@dataclass(frozen=True, eq=False)
class Predictions:
    """What a network said of n images of k classes, and what they are."""

    logits: NDArray[np.float32]
    """float32 (n, k)"""
    labels: NDArray[np.int32]
    """int32 (n,)"""

    def probabilities(self) -> NDArray[np.float64]:
        """float64 (n, k): the softmax of the logits."""
        import numpy as np  # here and below: commands that read no predictions do not need it

        logits = self.logits.astype(np.float64)
        shares = np.exp(logits - logits.max(axis=1, keepdims=True))
        return shares / shares.sum(axis=1, keepdims=True)

    def reliability(self) -> NDArray[np.float64]:
        """float64 (3, BINS): of each bin of confidence the images, the sum of their confidence, and the hits."""
        import numpy as np

        if not len(self.labels):
            return np.zeros((3, BINS))
        probabilities = self.probabilities()
        confidence = probabilities.max(axis=1)
        hits = probabilities.argmax(axis=1) == self.labels
        sure = np.nan_to_num(confidence)  # a network that diverged is refused by its loss
        bins = np.minimum((sure * BINS).astype(np.int64), BINS - 1)
        sums = (np.bincount(bins, weights=weight, minlength=BINS) for weight in (np.ones_like(sure), sure, hits))
        return np.stack(list(sums)).astype(np.float64)


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
