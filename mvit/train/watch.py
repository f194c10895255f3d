"""What is watched while steps run: losses that must be finite, and the time that steps take."""

import time
from dataclasses import dataclass, field

import mindspore as ms
import numpy as np


class NonFinite(Exception):
    """A loss or gradient norm that is not finite; the message names the steps."""


def must_be_finite(metrics: dict[str, float], *, step: int) -> None:
    """Raises `NonFinite`."""
    bad = [name for name, value in metrics.items() if not np.isfinite(value)]
    if bad:
        raise NonFinite(f"{', '.join(bad)} not finite at step {step}; lower optimizer.lr, or clip")


@dataclass
class Window:
    """The losses since the last journal line, still on the device."""

    losses: list[tuple[int, ms.Tensor, int]] = field(default_factory=list)
    last: float = float("nan")

    def add(self, step: int, loss_sum: ms.Tensor, *, count: int) -> None:
        """The sum of the losses of a step's `count` images."""
        self.losses.append((step, loss_sum, count))

    def close(self) -> float:
        """Mean loss of an image of the window; raises `NonFinite` naming the steps."""
        sums = [(step, float(loss.asnumpy()), count) for step, loss, count in self.losses]  # synchronises
        self.losses.clear()
        bad = [step for step, value, _ in sums if not np.isfinite(value)]
        if bad:
            steps = f"step {bad[0]}" if len(bad) == 1 else f"steps {bad[0]} to {bad[-1]}"
            raise NonFinite(f"the loss is not finite at {steps}; lower optimizer.lr or set train.clip_norm")
        self.last = sum(value for _, value, _ in sums) / sum(count for *_, count in sums)
        return self.last


@dataclass
class Throughput:
    """Time of the steps in steady state: no compilation, no first steps, no evaluation."""

    steps: int = 0
    images: int = 0
    seconds: float = 0.0
    waiting_s: float = 0.0
    _began: float = 0.0
    _waited: float = 0.0
    _counted: int = 0

    def start(self, *, waited_s: float) -> None:
        self._began, self._waited, self._counted = time.perf_counter(), waited_s, self.steps

    def add(self, images: int) -> None:
        """One step of so many images, over all devices."""
        self.steps += 1
        self.images += images

    def stop(self, *, waited_s: float) -> None:
        """The device must have been synchronised."""
        if self.steps > self._counted:
            self.seconds += time.perf_counter() - self._began
            self.waiting_s += waited_s - self._waited

    def metrics(self) -> dict[str, float]:
        """Empty for a run of too few steps to have a steady state."""
        if not self.steps:
            return {}
        return {
            "perf/images_per_s": self.images / self.seconds,
            "perf/step_ms": 1e3 * self.seconds / self.steps,
            "perf/data_wait_pct": 100.0 * self.waiting_s / self.seconds,
        }
