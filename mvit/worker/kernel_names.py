"""Kernel names: which function a fused operator of a graph calls. MindSpore's profiler calls all of them `Custom`."""

import os
import re
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path

BUILT = "graph_build"
"""What MindSpore names its dump of a graph as it is executed."""
_FUNCTION = re.compile(r'func_name: "[^"]*:mvit_(\w+)"')
_PLACE = re.compile(r"Fullname with scope: \(([^)]+)\)")


@contextmanager
def kernels_dumped(folder: Path) -> Generator[None]:
    """Meanwhile MindSpore writes each graph that it compiles or loads to a folder, as it is executed."""
    asked = {"MS_DEV_SAVE_GRAPHS": "1", "MS_DEV_SAVE_GRAPHS_PATH": str(folder), "MS_DEV_DUMP_IR_PASSES": BUILT}
    before = {name: os.environ.get(name) for name in asked}
    os.environ.update(asked)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value


def read_kernels(folder: Path, *, num_graphs: int) -> list[Mapping[str, str]]:
    """The functions of each graph's fused operators, by the name of the operator.

    Empty where MindSpore did not write one file per graph, in their order.
    """
    files = sorted(folder.rglob(f"{BUILT}_*.ir"), key=lambda file: int(file.stem.split("_")[2]))
    if len(files) != num_graphs:
        return [{} for _ in range(num_graphs)]
    return [_kernels(file.read_text(encoding="utf-8", errors="replace")) for file in files]


def _kernels(dump: str) -> Mapping[str, str]:
    """An operator's attributes stand on the line of its call, its name in the comments below."""
    kernels: dict[str, str] = {}
    function = None
    for line in dump.splitlines():
        if match := _FUNCTION.search(line):
            function = match[1]
        elif function and (match := _PLACE.search(line)):
            kernels[match[1]] = function
            function = None
    return kernels
