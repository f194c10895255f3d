"""Hydra's launcher interface: every trial of a multirun goes to the task function at once, composed.

Imported at every start, so it imports little.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict


class AllAtOnce(Launcher):
    """Composes all trials, then calls the task function once, with (overrides, configuration) of each."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self._context, self._task, self._config = hydra_context, task_function, config

    def launch(
        self,
        job_overrides: Sequence[Sequence[str]],
        initial_job_idx: int,  # noqa: ARG002  (Hydra's interface)
    ) -> Sequence[JobReturn]:
        self._task([self._compose(overrides) for overrides in job_overrides])
        return [_done() for _ in job_overrides]

    def _compose(self, overrides: Sequence[str]) -> tuple[tuple[str, ...], DictConfig]:
        config: Any = self._context.config_loader.load_sweep_config(self._config, list(overrides))
        with open_dict(config):
            del config["hydra"]
        return tuple(overrides), config


def _done() -> JobReturn:
    """What the sweeper wants of each job; the launcher reports by exit code."""
    job = JobReturn()
    job.status, job.return_value = JobStatus.COMPLETED, None
    return job


ConfigStore.instance().store(
    group="hydra/launcher",
    name="mvit",
    node={"_target_": f"{AllAtOnce.__module__}.{AllAtOnce.__qualname__}"},
    provider="mvit",
)
