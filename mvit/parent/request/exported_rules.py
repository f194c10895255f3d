"""What a launch must ask of an exported network that it evaluates: the file, and what model.json says it takes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from mvit.config import Data, Task, Topology
from mvit.errors import Problem
from mvit.files import file_digest
from mvit.rundir.exported import ABOUT, exported_form, read_about

KEY = "task.checkpoint"


def fits_exported(task: Task, data: Data, topology: Topology) -> Iterator[Problem]:
    """Where the file is another one than was exported, or takes other images or batches than are chosen."""
    if task.kind != "evaluate" or (form := exported_form(path := Path(task.checkpoint))) is None or not path.is_file():
        return
    try:
        about = read_about(path.parent)
    except (OSError, ValueError):
        rule = f"has no {ABOUT} beside it that says what it takes"
        yield Problem(KEY, task.checkpoint, rule, "copy the whole folder that task=export wrote")
        return
    if file_digest(path) != about.sha256.get(form):
        yield Problem(KEY, task.checkpoint, f"is not the file that {ABOUT} beside it vouches for", "export it again")
    if task.weights != "best":
        yield Problem(
            "task.weights", task.weights, "is for checkpoints: a network is exported with one set", "leave it out"
        )
    if form == "onnx" and topology.kind != "cpu":
        yield Problem(KEY, task.checkpoint, "runs in onnxruntime, on a CPU", "use topology=cpu, or model.mindir")
    takes = about.input
    if data.image_size != takes.size:
        rule = f"is not what {path.name} was exported for"
        yield Problem("data.image_size", data.image_size, rule, f"use {takes.size}, or export it for this size")
    if takes.batch_size not in (None, task.batch_size):
        rule = f"is not the number of images that {path.name} takes at once"
        yield Problem("task.batch_size", task.batch_size, rule, f"use {takes.batch_size}")
