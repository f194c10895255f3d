"""Hydra's sweeper interface: the trials of a multirun go to the task function all at once.

Hydra's own sweeper composes each trial twice, and its launcher one after the other. Imported at every start.
"""

from __future__ import annotations

from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class AllAtOnce(Sweeper):
    """Calls the task function once, with the overrides of each trial: every combination, in Hydra's order."""

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
        overrides = OverridesParser.create().parse_overrides(
            [*(f"{k}={v}" for k, v in self.params.items()), *arguments]
        )
        trials = BasicSweeper.split_arguments(overrides, max_batch_size=None)[0]
        self._task([[override.removeprefix("++") for override in trial] for trial in trials])


ConfigStore.instance().store(
    group="hydra/sweeper",
    name="mvit",
    node={"_target_": f"{AllAtOnce.__module__}.{AllAtOnce.__qualname__}", "params": None},
    provider="mvit",
)
