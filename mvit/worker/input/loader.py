"""Batches of images and labels, prepared ahead of the step that needs them."""

import mmap
import multiprocessing
import os
import time
from collections import deque
from collections.abc import Generator, Iterable, Mapping
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field, replace

import numpy as np

from mvit.config import AugmentConfig, Data
from mvit.data.source import Source
from mvit.plan import BATCHES_AHEAD
from mvit.process import memory_file
from mvit.worker.input import prepare
from mvit.worker.input.prepare import Place, Recipe, View

CHUNK = 16
"""Images of one task, at most: a task costs this process 0.2 ms; few enough to share out a batch."""
Job = tuple[Recipe, Source, np.ndarray, np.ndarray, int]
"""What is done to which samples, in which views, as a batch of how many rows."""


class DataProcessDied(Exception):
    """A process that prepares images ended by itself."""


@dataclass(frozen=True)
class Batch:
    """Images (B, S, S, 3) uint8, labels (B,) int32, mask (B,) float32: 1 for samples, 0 for padding.

    The images are the loader's own memory, and are overwritten once the next batch is asked for.
    """

    images: np.ndarray
    labels: np.ndarray
    mask: np.ndarray
    unreadable: Mapping[int, str] = field(default_factory=dict)
    """Why, by the index of its sample, an image is black; only where the loader reports it."""


@dataclass(frozen=True)
class MicroBatch:
    """What to load as one batch of training: indices and views (n,), at one image size."""

    indices: np.ndarray
    views: np.ndarray
    image_size: int


class Loader:
    """Processes (or threads) that decode and transform; `waited_s` is the time the training spent waiting for them.

    `largest` is the largest number of images of a batch times their area; `in_memory` is that of the sources.
    """

    def __init__(self, data: Data, *, augment: AugmentConfig | None, seed: int, largest: int, in_memory: bool) -> None:
        rgb = data.channel_order == "rgb"
        self.recipe = Recipe(
            augment=augment,
            image_size=data.image_size,
            # Stated for the channels as the network sees them; images are RGB until they are normalised.
            mean=(data.mean[0], data.mean[1], data.mean[2]) if rgb else (data.mean[2], data.mean[1], data.mean[0]),
            eval_crop_fraction=data.eval_crop_fraction,
            interpolation=data.interpolation,
            antialias=data.antialias,
            seed=seed,
            epoch=None,
        )
        self.workers = data.workers
        self.shared = not in_memory
        self.slot_bytes = 3 * largest
        self.descriptor = memory_file("mvit-batches")
        os.ftruncate(self.descriptor, (BATCHES_AHEAD + 1) * self.slot_bytes)
        self.memory = mmap.mmap(self.descriptor, 0)
        self.pool = self._processes() if self.shared else ThreadPoolExecutor(self.workers, thread_name_prefix="data")
        self.waited_s = 0.0

    def _processes(self) -> Executor:
        # A server that has loaded the modules once forks them: 6 MB of its own for each, and no fork of this process,
        # whose threads and device would not survive it.
        context = multiprocessing.get_context("forkserver")
        augment = self.recipe.augment
        operators = not self.recipe.antialias or (augment is not None and augment.color_jitter is not None)
        context.set_forkserver_preload([prepare.__name__, *(["mindspore.dataset.vision"] if operators else [])])
        pool = ProcessPoolExecutor(self.workers, mp_context=context, initializer=prepare.start, initargs=(os.getpid(),))
        for _ in range(self.workers):
            pool.submit(prepare.ready)  # they start while the graphs are compiled
        return pool

    def train(self, source: Source, micro_batches: Iterable[MicroBatch], *, epoch: int) -> Generator[Batch, None, None]:
        """One augmented batch for each micro-batch."""

        def job(micro: MicroBatch) -> Job:
            recipe = replace(self.recipe, epoch=epoch, image_size=micro.image_size)
            return recipe, source, micro.indices, micro.views, len(micro.indices)

        return self._ahead(map(job, micro_batches))

    def evaluate(
        self,
        source: Source,
        indices: np.ndarray,
        *,
        batch_size: int,
        num_batches: int,
        reports_unreadable: bool = False,
    ) -> Generator[Batch, None, None]:
        """Batches of one fixed size; what the indices do not fill is masked."""
        recipe = replace(self.recipe, reports_unreadable=reports_unreadable)
        chunks = (indices[i * batch_size : (i + 1) * batch_size] for i in range(num_batches))
        return self._ahead((recipe, source, chunk, np.zeros_like(chunk), batch_size) for chunk in chunks)

    def close(self) -> None:
        self.pool.shutdown(wait=False, cancel_futures=True)
        os.close(self.descriptor)  # the memory goes with the last view of it

    def _ahead(self, jobs: Iterable[Job]) -> Generator[Batch, None, None]:
        queue: deque[tuple[list[Future], np.ndarray, np.ndarray]] = deque()
        try:
            for number, (recipe, source, indices, view_numbers, batch_size) in enumerate(jobs):
                offset = number % (BATCHES_AHEAD + 1) * self.slot_bytes
                size = recipe.image_size
                images = np.frombuffer(self.memory, np.uint8, batch_size * size * size * 3, offset)
                images = images.reshape(batch_size, size, size, 3)
                views = [
                    View(source.sample(int(i)), int(i), int(v)) for i, v in zip(indices, view_numbers, strict=True)
                ]
                queue.append((self._submit(recipe, views, images, offset), images, source.labels[indices]))
                if len(queue) > BATCHES_AHEAD:
                    yield self._collect(*queue.popleft())
            while queue:
                yield self._collect(*queue.popleft())
        except BrokenProcessPool as error:
            raise DataProcessDied(
                "a process that prepares images died; if memory ran out, lower data.workers"
            ) from error
        finally:  # left early: nothing may still write into memory that the next batches use
            left = [future for futures, *_ in queue for future in futures]
            wait(future for future in left if not future.cancel())

    def _submit(self, recipe: Recipe, views: list[View], images: np.ndarray, offset: int) -> list[Future]:
        images[len(views) :] = 0
        chunk = max(1, min(CHUNK, len(views) // (2 * self.workers)))
        futures: list[Future] = []
        for first in range(0, len(views), chunk):
            some = views[first : first + chunk]
            if self.shared:
                place = Place(os.getpid(), self.descriptor, offset + first * images[0].nbytes)
                futures.append(self.pool.submit(prepare.prepare_shared, recipe, some, place))
            else:
                futures.append(self.pool.submit(prepare.prepare, recipe, some, images[first : first + chunk]))
        return futures

    def _collect(self, futures: list[Future], images: np.ndarray, labels: np.ndarray) -> Batch:
        began = time.perf_counter()
        unreadable: dict[int, str] = {}
        for future in futures:
            unreadable |= future.result()
        self.waited_s += time.perf_counter() - began
        padding = len(images) - len(labels)
        return Batch(
            images=images,
            labels=np.pad(labels, (0, padding)),
            mask=(np.arange(len(images)) < len(labels)).astype(np.float32),
            unreadable=unreadable,
        )
