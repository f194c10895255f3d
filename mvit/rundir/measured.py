"""Measured: how long the steps of one shape took."""

from __future__ import annotations

import statistics
from typing import Annotated

from pydantic import Field

from mvit.config import Frozen, Mode

Times = Annotated[tuple[float, ...], Field(strict=False)]


class Measured(Frozen):
    """The steps of one graph, each from images in memory to its result in memory."""

    graph: str
    mode: Mode
    batch_size: int
    """Images per step, per device."""
    image_size: int
    images: int
    """Images per step, over all devices."""
    step_ms: Times
    """Of each step, by the worker that took longest."""
    compile_s: float
    loss: float
    """The mean loss of an image in the last step, which shows that the steps compute."""
    other_load_pct: float
    """Processor time of other processes meanwhile, in percent of one core."""

    @property
    def quartiles_ms(self) -> tuple[float, float, float]:
        """Lower quartile, median, upper quartile."""
        lower, median, upper = statistics.quantiles(self.step_ms, n=4, method="inclusive")
        return lower, median, upper

    @property
    def images_per_s(self) -> float:
        """At the median."""
        return 1e3 * self.images / self.quartiles_ms[1]

    def metrics(self) -> dict[str, float]:
        lower, median, upper = self.quartiles_ms
        values = {
            "images_per_s": self.images_per_s,
            "step_ms": median,
            "step_ms_lower_quartile": lower,
            "step_ms_upper_quartile": upper,
            "step_ms_min": min(self.step_ms),
            "step_ms_max": max(self.step_ms),
            "compile_s": self.compile_s,
            "other_load_pct": self.other_load_pct,
            "loss": self.loss,
        }
        return {f"benchmark/{self.graph}/{name}": value for name, value in values.items()}
