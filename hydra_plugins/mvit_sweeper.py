"""Hydra's sweeper interface: what was typed for a multirun goes to the task function all at once.

Hydra's own sweeper composes each trial twice, and its launcher one after the other. Imported at every start.
"""

from __future__ import annotations

from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class AllAtOnce(Sweeper):
    """Calls the task function once, with the overrides of the whole sweep."""

    def __init__(self, params: dict[str, str] | None) -> None:
        self.params = params or {}

    def setup(
        self,
        *,
        hydra_context: HydraContext,  # noqa: ARG002  (Hydra's interface)
        task_function: TaskFunction,
        config: DictConfig,  # noqa: ARG002  (Hydra's interface)
    ) -> None:
        self._task: Any = task_function

    def sweep(self, arguments: list[str]) -> None:
        self._task([*(f"{key}={value}" for key, value in self.params.items()), *arguments])


ConfigStore.instance().store(
    group="hydra/sweeper",
    name="mvit",
    node={"_target_": f"{AllAtOnce.__module__}.{AllAtOnce.__qualname__}", "params": None},
    provider="mvit",
)
