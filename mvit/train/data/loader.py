"""Batches of network input, prepared ahead of the step that needs them."""

import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from mvit.config import AugmentConfig, Data
from mvit.train.data import sampler
from mvit.train.data.source import Source
from mvit.train.data.transforms import INTERPOLATION, augment, center, to_input

AHEAD = 3
"""Batches that are being prepared while one is computed."""


@dataclass(frozen=True)
class Batch:
    """Images (B, 3, H, W) float32, labels (B,) int32, mask (B,) float32: 1 for samples, 0 for padding."""

    images: np.ndarray
    labels: np.ndarray
    mask: np.ndarray


class Loader:
    """Threads that decode, transform and stack; `waited_s` is the time the training spent waiting for them."""

    def __init__(self, data: Data, *, augment: AugmentConfig, seed: int) -> None:
        self.data, self.augment, self.seed = data, augment, seed
        self.pool = ThreadPoolExecutor(data.workers, thread_name_prefix="data")
        self.waited_s = 0.0

    def train(self, source: Source, batches: Iterator[np.ndarray], *, epoch: int) -> Iterator[Batch]:
        """One augmented batch for each array of indices."""

        def view(index: int) -> np.ndarray:
            random = sampler.generator(self.seed, epoch, index, stream=3)
            return augment(source.image(index), self.augment, size=self.data.image_size, random=random)

        return self._ahead((indices, view, source, len(indices)) for indices in batches)

    def evaluate(self, source: Source, indices: np.ndarray, *, batch_size: int, num_batches: int) -> Iterator[Batch]:
        """Batches of one fixed size; what the indices do not fill is masked."""
        interpolation = INTERPOLATION[self.augment.interpolation]

        def view(index: int) -> np.ndarray:
            image = source.image(index)
            fraction = self.data.eval_crop_fraction
            return center(image, size=self.data.image_size, fraction=fraction, interpolation=interpolation)

        chunks = (indices[i * batch_size : (i + 1) * batch_size] for i in range(num_batches))
        return self._ahead((chunk, view, source, batch_size) for chunk in chunks)

    def close(self) -> None:
        self.pool.shutdown(wait=False, cancel_futures=True)

    def _ahead(self, jobs) -> Iterator[Batch]:
        queue: deque[tuple[list[Future], np.ndarray, int]] = deque()
        for indices, view, source, batch_size in jobs:
            images = [self.pool.submit(view, int(index)) for index in indices]
            queue.append((images, source.labels[indices], batch_size))
            if len(queue) > AHEAD:
                yield self._collect(*queue.popleft())
        while queue:
            yield self._collect(*queue.popleft())

    def _collect(self, futures: list[Future], labels: np.ndarray, batch_size: int) -> Batch:
        began = time.perf_counter()
        size = self.data.image_size
        images = np.zeros((batch_size, size, size, 3), np.uint8)
        for row, future in enumerate(futures):
            images[row] = future.result()
        data = self.data
        normal = to_input(images, mean=data.mean, std=data.std, channel_order=data.channel_order)
        count = len(labels)
        batch = Batch(
            images=normal,
            labels=np.pad(labels, (0, batch_size - count)),
            mask=(np.arange(batch_size) < count).astype(np.float32),
        )
        self.waited_s += time.perf_counter() - began
        return batch
