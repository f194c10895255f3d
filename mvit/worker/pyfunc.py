"""What MLflow loads a model of ours with, without the checkout's configuration; see `mvit.worker.serve`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from mvit.served_model import WEIGHTS, read_about

if TYPE_CHECKING:
    from mvit.worker.serve import Predictor


def _load_pyfunc(path: str) -> Predictor:  # pyright: ignore[reportUnusedFunction]  (MLflow calls it)
    folder = Path(path)
    served = read_about(folder)
    if served.onednn_max_isa:  # results depend on it; read once, as oneDNN is loaded
        os.environ.setdefault("ONEDNN_MAX_CPU_ISA", served.onednn_max_isa)
    from mvit.worker.serve import Predictor

    return Predictor(served, folder / WEIGHTS)
