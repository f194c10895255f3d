"""What compiled graphs compute from known weights and images: the same after every compilation, and every load."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import mindspore as ms
import numpy as np
from mindspore import nn

Runnable = tuple[nn.Cell, tuple[ms.Tensor, ...]]
"""A compiled cell, and inputs of the shapes that it was compiled for."""


def check_graphs(runnables: Iterable[Runnable]) -> str:
    """Run each graph once; sha256 over its outputs and over every parameter that it leaves.

    Every parameter has its own value again afterwards. A loss alone would not do: a graph whose moments were not those
    of its optimizer returned the right one, and ruined the weights.
    """
    digest = hashlib.sha256()
    for cell, inputs in runnables:
        parameters = list(cell.get_parameters())
        with _known_values(parameters):
            outputs = cell(*map(_known_input, inputs))
            for output in outputs if isinstance(outputs, tuple) else (outputs,):
                digest.update(output.asnumpy().tobytes())  # synchronises
            for parameter in parameters:
                digest.update(parameter.asnumpy().tobytes())
    return digest.hexdigest()


@contextmanager
def _known_values(parameters: Sequence[ms.Parameter]) -> Iterator[None]:
    """Small positive values, which are valid weights, variances and moments; the parameters' own ones at the end."""
    own = [parameter.asnumpy().copy() for parameter in parameters]
    random = np.random.default_rng(0)
    for parameter in parameters:
        values = random.uniform(0.01, 0.05, parameter.shape).astype(np.float32)
        parameter.set_data(ms.Tensor(values, parameter.dtype))
    try:
        yield
    finally:
        for parameter, value in zip(parameters, own, strict=True):
            parameter.set_data(ms.Tensor(value))


def _known_input(blank: ms.Tensor) -> ms.Tensor:
    """Images of noise and rates above 0; labels, masks and keys as they are."""
    if blank.dtype == ms.uint8:
        return ms.Tensor(np.random.default_rng(1).integers(0, 256, blank.shape, np.uint8))
    if blank.dtype == ms.float32 and blank.shape == ():
        return ms.Tensor(1e-3, ms.float32)
    return blank
