"""What every subject of the step benchmark does: report what it is, then take steps as each line of stdin asks.

Imports nothing but the standard library: subjects run in environments of their own.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any


def answers() -> Any:
    """Where a subject answers; what libraries print from here on goes to standard error."""
    stream = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    return stream


def seconds(act: Callable[[], object]) -> float:
    """How long an action takes."""
    began = time.perf_counter()
    act()
    return time.perf_counter() - began


def serve(stream: Any, facts: Mapping[str, Any], steps: Mapping[str, Callable[[], None]]) -> None:
    """Answer `train 5` with the milliseconds of five training steps, each of which waits for its result.

    The facts, first of all: `versions`, `isa` (the vectors that it computes with, in its own words), `parameters` (the
    number of values that are trained), and `first_s`.
    """
    print(json.dumps(facts), file=stream)
    for line in sys.stdin:
        name, count = line.split()
        times = [1e3 * seconds(steps[name]) for _ in range(int(count))]
        peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps({"ms": times, "peak_mb": peak_mb}), file=stream)
    stream.flush()
    os._exit(0)  # some libraries take seconds to say goodbye
