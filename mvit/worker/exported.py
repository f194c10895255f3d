"""An exported network as a function of images."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import nn

from mvit.config import ExportFormat

INPUT, OUTPUT = "images", "logits"
Model = Callable[[np.ndarray], np.ndarray]
"""Images (B, S, S, 3) uint8 -> logits (B, classes) float32."""


def open_exported(path: Path, form: ExportFormat, *, threads: int | None) -> Model:
    """What a file computes, by MindSpore or by ONNX Runtime."""
    match form:
        case "mindir":
            graph = nn.GraphCell(ms.load(str(path)))
            return lambda images: graph(ms.Tensor(images)).asnumpy()
        case "onnx":
            import onnxruntime  # an extra

            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = threads or 0
            options.log_severity_level = 3
            session: Any = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
            return lambda images: session.run([OUTPUT], {INPUT: images})[0]
