"""A served model on the CPU of this machine: images to logits, as an evaluation computes them."""

import base64
import io
import logging
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import mindspore as ms
import numpy as np
from PIL import Image
from safetensors.numpy import load_file

from mvit.data.sample import DECODABLE
from mvit.models import mobilevit
from mvit.models.kernels import network as fused
from mvit.models.kernels import operators
from mvit.models.kernels.build import KernelsUnavailable, library, support, this_cpu
from mvit.served_model import COLUMN, ServedModel
from mvit.worker import checkpoint, device
from mvit.worker.evaluate import EvaluateStep
from mvit.worker.images import Normalise
from mvit.worker.input.transforms import center


class Predictor:
    """Images to logits (n, classes) float32."""

    def __init__(self, served: ServedModel, weights: Path) -> None:
        self.served = served
        self.lock = threading.Lock()  # servers answer from several threads
        device.open_device("CPU", threads=self.served.threads, jit_level=None)
        self.step = _network(served, weights)

    def predict(self, model_input: Any, params: dict[str, Any] | None = None) -> np.ndarray:
        """Of a table with the column `image`: encoded files as bytes or in base64, or arrays (H, W, 3) uint8.

        An array of the network's own size is taken as it is; everything else is resized and cropped as in evaluation.
        """
        images = [pixels_of(one, self.served) for one in model_input[COLUMN]]
        with self.lock:
            parts = [self._logits(batch)[:count] for batch, count in self._batches(images)]
        return np.concatenate(parts) if parts else np.zeros((0, len(self.served.class_names)), np.float32)

    def _logits(self, images: np.ndarray) -> np.ndarray:
        """By the graph of an evaluation, whose bits another graph would not have; its labels do not matter."""
        labels, mask = np.zeros(len(images), np.int32), np.ones(len(images), np.float32)
        _, logits, _ = self.step(ms.Tensor(images), ms.Tensor(labels), ms.Tensor(mask))
        return logits.asnumpy()

    def _batches(self, images: Sequence[np.ndarray]) -> Iterator[tuple[np.ndarray, int]]:
        """Batches of the graph's one size, each with how many images are in it."""
        size, side = self.served.batch_size, self.served.images.image_size
        for start in range(0, len(images), size):
            batch = np.zeros((size, side, side, 3), np.uint8)
            chunk = images[start : start + size]
            batch[: len(chunk)] = chunk
            yield batch, len(chunk)


def _network(served: ServedModel, weights: Path) -> EvaluateStep:
    form = mobilevit.MobileViT
    if isa := served.kernels.isa:
        isa = isa if isa in this_cpu() else support().isa  # with other vectors, results differ by rounding
    if isa:
        try:
            operators.open_library(library(isa, served.kernels.activations), threads=served.threads or 1)
            form = fused.MobileViT
        except KernelsUnavailable as error:
            logging.getLogger(__name__).warning("predicting without fused kernels, more slowly: %s", error)
    net = form(served.model, num_classes=len(served.class_names))
    device.cast_network(net, served.precision)
    checkpoint.load(net, load_file(weights), source=weights)
    normalise = Normalise(served.images, channels_last=net.channels_last)
    step = EvaluateStep(net, normalise=normalise, num_classes=len(served.class_names))
    step.set_train(False)
    return step


def pixels_of(image: Any, served: ServedModel) -> np.ndarray:
    """The network's view (S, S, 3) uint8 of one image; raises `ValueError` or `OSError` for anything else."""
    images = served.images
    if isinstance(image, str):
        try:
            image = base64.b64decode(image, validate=True)
        except ValueError as error:
            raise ValueError(f"an image that is neither bytes, base64 nor an array: {image[:40]!r}") from error
    if isinstance(image, bytes):
        with Image.open(io.BytesIO(image), formats=DECODABLE) as picture:
            return _center(picture, served)
    pixels = np.asarray(image)
    if pixels.ndim != 3 or pixels.shape[2] != 3 or not _are_bytes(pixels):
        raise ValueError(f"an array of shape {pixels.shape} and type {pixels.dtype}, not (H, W, 3) of 0 to 255")
    pixels = pixels.astype(np.uint8)
    if pixels.shape[:2] == (images.image_size, images.image_size):
        return pixels
    return _center(Image.fromarray(pixels), served)


def _are_bytes(pixels: np.ndarray) -> bool:
    """Whether the values fit uint8, which JSON does not know."""
    if pixels.dtype == np.uint8:
        return True
    return np.issubdtype(pixels.dtype, np.integer) and bool(((pixels >= 0) & (pixels <= 255)).all())


def _center(picture: Image.Image, served: ServedModel) -> np.ndarray:
    images = served.images
    return center(
        picture,
        size=images.image_size,
        fraction=images.eval_crop_fraction,
        interpolation=images.interpolation,
        antialias=images.antialias,
    )
