"""Meters of the training loop: losses, which must be finite, and the time that steps take."""

import time
from collections import Counter, deque
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager

import mindspore as ms
import numpy as np

from mvit.plan import WARM_STEPS
from mvit.worker.stop import IN_FLIGHT


class NonFinite(Exception):
    """A loss or gradient norm is not finite; the message names the steps."""


def must_be_finite(metrics: dict[str, float], *, step: int) -> None:
    """Raises `NonFinite`."""
    bad = [name for name, value in metrics.items() if not np.isfinite(value)]
    if bad:
        raise NonFinite(f"{', '.join(bad)} not finite at step {step}; lower optimizer.lr, or clip")


class Window:
    """The losses since the last journal line, most of them still on the device."""

    def __init__(self, losses: Sequence[tuple[int, float, int]] = (), *, last: float | None = None) -> None:
        self.losses: list[tuple[int, ms.Tensor | float, int]] = [(step, value, count) for step, value, count in losses]
        self.last = last
        self._in_flight: deque[ms.Tensor] = deque()

    def add(self, step: int, loss_sum: ms.Tensor, *, count: int) -> None:
        """Add the sum of the losses of a step's `count` images; waits for the step IN_FLIGHT steps before it."""
        self.losses.append((step, loss_sum, count))
        self._in_flight.append(loss_sum)
        if len(self._in_flight) > IN_FLIGHT:
            self._in_flight.popleft().asnumpy()  # synchronises

    def synchronise(self) -> None:
        """Wait for the device."""
        while self._in_flight:
            self._in_flight.popleft().asnumpy()

    def values(self) -> list[tuple[int, float, int]]:
        """The losses as numbers; waits for the device."""
        self.losses = [
            (step, loss if isinstance(loss, (int, float)) else float(loss.asnumpy()), count)  # synchronises
            for step, loss, count in self.losses
        ]
        return [(step, float(loss), count) for step, loss, count in self.losses]

    def close(self) -> float:
        """The mean loss of an image, and an empty window; raises `NonFinite`, which names the steps."""
        sums = self.values()
        self.losses.clear()
        bad = [step for step, value, _ in sums if not np.isfinite(value)]
        if bad:
            steps = f"step {bad[0]}" if len(bad) == 1 else f"steps {bad[0]} to {bad[-1]}"
            raise NonFinite(f"the loss is not finite at {steps}; lower optimizer.lr or set train.clip_norm")
        self.last = sum(value for _, value, _ in sums) / sum(count for *_, count in sums)
        return self.last


class Throughput:
    """Time of the steps in steady state: no compilation, no evaluation, no first steps of any shape.

    `clocks` tell the seconds so far of what takes a part of a step; its share is a metric of that name.
    """

    def __init__(self, *, synchronise: Callable[[], None], clocks: Mapping[str, Callable[[], float]]) -> None:
        self.synchronise = synchronise
        self.clocks = clocks
        self.spent = dict.fromkeys(clocks, 0.0)
        self.steps = self.images = 0
        self.seconds = 0.0
        self._seen: Counter[int] = Counter()
        self._steady = self._images = 0  # since the clock was started
        self._began = 0.0
        self._read: dict[str, float] = {}

    def start(self) -> None:
        """Start the clock; the device must be idle."""
        self._read = {name: clock() for name, clock in self.clocks.items()}
        self._began = time.perf_counter()  # after the clocks, which take milliseconds to read

    @contextmanager
    def step(self, images: int, *, shape: int) -> Generator[None]:
        """One step of this many images, over all devices, by the graph of a shape.

        The clock is stopped during the first WARM_STEPS of a shape: kernels search for their thread count, caches fill.
        """
        warm = self._seen[shape] < WARM_STEPS
        self._seen[shape] += 1
        if warm:
            self.stop()
        yield
        if warm:
            self.synchronise()
            self.start()
        else:
            self._steady += 1
            self._images += images

    def stop(self) -> None:
        """Stop the clock, once the device is done."""
        self.synchronise()
        if self._steady:
            self.seconds += time.perf_counter() - self._began
            for name, clock in self.clocks.items():
                self.spent[name] += clock() - self._read[name]
            self.steps, self.images = self.steps + self._steady, self.images + self._images
            self._steady = self._images = 0

    def metrics(self) -> dict[str, float]:
        """Empty for a run with too few steps for a steady state."""
        if not self.steps:
            return {}
        return {
            "perf/images_per_s": self.images / self.seconds,
            "perf/step_ms": 1e3 * self.seconds / self.steps,
            # A clock that is the difference of two readings, which are not simultaneous, can run slightly backwards.
            **{f"perf/{name}_pct": max(0.0, 100.0 * spent / self.seconds) for name, spent in self.spent.items()},
        }
