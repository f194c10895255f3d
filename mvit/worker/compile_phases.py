"""The phases of a compilation, as MindSpore tells them in the log of this process.

`VLOG_v=1` in the environment would have it log every step too, so the level is raised for the compilation alone.
"""

import ctypes
import os
import re
import stat
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

import mindspore

COMPILATION = 1
"""The level of the verbose log at which MindSpore tells what each phase cost."""
_STDERR = 2
_PHASE = re.compile(r"\[compile_action\] (\w+) costs ([\d.e+-]+) msec")


@contextmanager
def recorded_phases() -> Generator[dict[str, float]]:
    """Seconds by phase of what is compiled meanwhile, filled in at the end.

    Names are MindSpore's. It stays empty where MindSpore does not tell, or where the log is no file to read back.
    """
    phases: dict[str, float] = {}
    start = _log_size()
    if start is None:
        yield phases
        return
    with _verbose():
        yield phases
    for name, milliseconds in _PHASE.findall(_log_from(start)):
        phases[name] = phases.get(name, 0.0) + float(milliseconds) / 1e3


@contextmanager
def _verbose() -> Generator[None]:
    """Meanwhile MindSpore logs what `VLOG_v=1` would have it log from its start."""
    try:
        core = ctypes.CDLL(str(Path(mindspore.__path__[0]) / "lib" / "libmindspore_core.so"))
        names = ("_ZN9mindspore20g_ms_vlog_level_fromE", "_ZN9mindspore18g_ms_vlog_level_toE")
        limits = [ctypes.c_int.in_dll(core, name) for name in names]
    except (OSError, ValueError):  # another MindSpore may keep the level elsewhere
        yield
        return
    before = [limit.value for limit in limits]
    for limit in limits:
        limit.value = COMPILATION
    try:
        yield
    finally:
        for limit, value in zip(limits, before, strict=True):
            limit.value = value


def _log_size() -> int | None:
    with suppress(OSError):
        facts = os.fstat(_STDERR)
        if stat.S_ISREG(facts.st_mode):
            return facts.st_size
    return None


def _log_from(start: int) -> str:
    with suppress(OSError), Path(f"/proc/self/fd/{_STDERR}").open("rb") as log:
        log.seek(start)
        return log.read().decode("utf-8", "replace")
    return ""
