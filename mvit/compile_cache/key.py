"""The key of compiled graphs: a digest of everything that shapes them.

MindSpore's own cache compares one source file and otherwise trusts the order of compilations. Here the key covers every
source that a worker can import, MindSpore's own files, the configuration, the plan, the environment, the kernels and
the CPU; what is left out is named below, because it enters a graph as an input or not at all. Something new in a
configuration belongs to the key until it is named there.
"""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Mapping
from functools import cache
from importlib.metadata import distribution
from pathlib import Path
from typing import Any, cast

from mvit.config import RunConfig
from mvit.files import file_digest, json_digest
from mvit.plan import LaunchPlan

PACKAGE = Path(__file__).resolve().parents[1]
NOT_IN_A_WORKER = ("cli", "parent")
"""Parts of the package that no worker imports."""

NOT_IN_A_GRAPH = frozenset(
    {
        "name", "runs_dir", "dry_run", "freeze", "verbose", "tracking", "limits", "launch", "topology.compile_cache",
        # The host's: the order of images, weights as they are loaded, and the mixing of a batch, an input.
        "seed", "init", "task.checkpoint", "task.weights", "task.batch_size",
        "task.warmup_steps", "task.repeats", "task.steps", "task.top", "task.output", "task.strict",
        "task.formats", "task.tolerance", "task.dynamic_batch",
        "augment.crop", "augment.horizontal_flip", "augment.color_jitter", "augment.policy", "augment.erasing",
        "augment.repeats", "augment.mix.probability", "augment.mix.mixup_alpha", "augment.mix.cutmix_alpha",
        "augment.mix.cutmix_share",
        # Inputs of every step.
        "schedule", "optimizer.lr", "optimizer.lr_batch_size", "optimizer.weight_decay",
        # The loop's. Shapes of batches, micro-batches and classes are the plan's.
        "train.epochs", "train.max_steps", "train.global_batch_size", "train.buckets", "train.log_every_steps",
        "train.eval_every_epochs", "train.eval_batch_size", "train.checkpoint_every_steps", "train.keep_last",
        "train.keep_best", "train.max_restarts",
        # Where images come from, and how the host prepares them; mean, std and channel_order are a graph's.
        "data.kind", "data.root", "data.images", "data.image_size", "data.train_folder", "data.val_folder",
        "data.on_unreadable", "data.class_names", "data.classes", "data.num_train", "data.num_val",
        "data.eval_crop_fraction", "data.interpolation", "data.antialias", "data.workers",
    }
)  # fmt: skip
"""Keys of a configuration, or sections, that do not shape a graph."""

PLANNED = (
    "world_size", "nodes", "device", "threads", "jit_level", "kernels", "accumulation", "num_classes", "graphs",
)  # fmt: skip
"""What shapes a graph in a plan."""

LIBRARIES = ("mindspore", "numpy")
VARIABLES = ("MS_", "ONEDNN_", "DNNL_")
"""Beginnings of the names of environment variables that may shape a graph."""
OF_A_LAUNCH = frozenset(
    {
        "MS_ROLE", "MS_NODE_ID", "MS_SCHED_HOST", "MS_SCHED_PORT", "MS_WORKER_NUM", "MS_OM_PATH",
        "MS_COMPILER_CACHE_PATH", "MS_COMPILER_CACHE_ENABLE", "MS_TOPO_TIMEOUT", "MS_NODE_TIMEOUT",
        "MS_DEV_SAVE_GRAPHS", "MS_DEV_SAVE_GRAPHS_PATH", "MS_DEV_DUMP_IR_PASSES",
    }
)  # fmt: skip
"""Variables that differ from launch to launch, or have graphs written down."""


def graph_key(
    config: RunConfig,
    plan: LaunchPlan,
    *,
    library: Path | None,
    environment: Mapping[str, str],
    cores: int,
    rank: int = 0,
) -> str:
    """The key of a rank's graphs, 64 hexadecimal digits.

    `library` holds the kernels, None for the plain form; `cores` are those that the process may use. Raises `OSError`
    where a source cannot be read.
    """
    return json_digest(
        {
            "sources": sources_digest(),
            "libraries": {name: _library_digest(name) for name in LIBRARIES},
            "python": platform.python_version(),
            "cpu": _cpu(),
            "cores": cores,
            "kernels": [str(library), file_digest(library)] if library else None,
            "config": shaping(config.model_dump(mode="json")),
            "plan": plan.model_dump(mode="json", include=set(PLANNED)),
            "environment": {
                name: value
                for name, value in environment.items()
                if name.startswith(VARIABLES) and name not in OF_A_LAUNCH
            },
            "rank": rank,
        }
    )


def shaping(section: Mapping[str, Any], *, prefix: str = "") -> dict[str, Any]:
    """The part of a configuration that shapes graphs."""
    kept: dict[str, Any] = {}
    for name, value in section.items():
        key = prefix + name
        if key not in NOT_IN_A_GRAPH:
            kept[name] = shaping(cast(dict[str, Any], value), prefix=f"{key}.") if isinstance(value, dict) else value
    return kept


def sources_digest(package: Path = PACKAGE) -> str:
    """Digest of the sources that a worker can import, by name and content."""
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        name = path.relative_to(package)
        if name.parts[0] not in NOT_IN_A_WORKER:
            digest.update(f"{name}\0{file_digest(path)}\0".encode())
    return digest.hexdigest()


@cache
def _library_digest(name: str) -> str:
    """Digest of what an installed distribution says of its files, each with its own digest."""
    installed = distribution(name)
    return hashlib.sha256(f"{installed.version}\0{installed.read_text('RECORD')}".encode()).hexdigest()


@cache
def _cpu() -> list[str]:
    """What identifies this CPU: kernels are chosen by it."""
    facts = ("vendor_id", "cpu family", "model", "model name", "stepping", "flags", "CPU implementer", "CPU part")
    facts += ("Features",)
    first, _, _ = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").partition("\n\n")
    return [line for line in first.splitlines() if line.partition(":")[0].strip() in facts]


STARTED_FROM = sources_digest()
"""Digest of the sources as they were when this process began to load them."""
