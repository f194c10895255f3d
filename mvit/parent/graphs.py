"""Compiled graphs as a launcher sees them: where they are kept, and whether those of a run are there."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from mvit.compile_cache.key import graph_key
from mvit.compile_cache.store import Store, store_folders
from mvit.config import AscendTopology, CpuTopology, RunConfig
from mvit.errors import ConfigError
from mvit.parent.kernels import library_of
from mvit.plan import LaunchPlan


def store_of(topology: CpuTopology | AscendTopology) -> Path | None:
    """The store that the workers of a topology use; None if they use none, or no folder can be written.

    Not on Ascend, where no load from MindSpore's cache has been tried yet.
    """
    if topology.kind != "cpu" or not topology.compile_cache:
        return None
    for folder in store_folders():
        with suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            if os.access(folder, os.W_OK | os.X_OK):
                return folder
    return None


def are_stored(config: RunConfig, plan: LaunchPlan, *, environment: Mapping[str, str]) -> bool:
    """Whether the first worker of a run will find its graphs; `environment` is what is added to that of workers."""
    root = store_of(config.topology)
    if root is None or plan.cores is None:
        return False
    with suppress(OSError, ConfigError):  # there is no library, which is said elsewhere
        library = library_of(plan, say=lambda _: None)
        key = graph_key(config, plan, library=library, environment={**os.environ, **environment}, cores=plan.cores)
        return Store(root).entry(key) is not None
    return False
