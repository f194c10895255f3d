"""Profiles on a terminal: the operators that take longest, and where the whole table and the trace are."""

from __future__ import annotations

from mvit import console
from mvit.console import shown
from mvit.parent.report.grid import Grid
from mvit.rundir.paths import RunDir
from mvit.rundir.profile import Profile, table_file, trace_file
from mvit.rundir.result import ProfileResult

SHOWN = 10
"""Operators of each graph."""
HEADINGS = ("operator", "calls", "ms", "share")


def report_profiles(folder: RunDir, result: ProfileResult) -> None:
    for profile in result.profiles:
        slower = f", {profile.unrecorded_step_ms:.2f} ms unrecorded"
        console.say(f"  {profile.graph}: {profile.step_ms:.2f} ms/step over {profile.steps} steps{slower}")
        for line in operators(profile).lines():
            console.say(f"    {line}")
        if phases := [f"{name} {seconds:.1f} s" for name, seconds in profile.phases.items() if seconds >= 0.1]:
            console.say(f"    compilation: {', '.join(phases)}")
        console.say(f"    table: {shown(table_file(folder.profile, profile.mode))}")
        console.say(f"    trace: {shown(trace_file(folder.profile, profile.mode))}")
    console.say("  to see a trace, open the file at https://ui.perfetto.dev: it is read in the browser, not sent")


def operators(profile: Profile) -> Grid:
    """Calls, milliseconds and share of an average step; the shares of all rows add up to 100 %."""
    first, others = profile.operators[:SHOWN], profile.operators[SHOWN:]
    rows = [_row(one.operator, f"{one.calls:g}", one.ms, one.share_pct) for one in first]
    if others:
        calls = f"{sum(one.calls for one in others):g}"
        name = f"{len(others)} others"
        rows.append(_row(name, calls, sum(one.ms for one in others), sum(one.share_pct for one in others)))
    left = 100.0 - sum(one.share_pct for one in profile.operators)
    rows.append(_row("between operators", "", profile.step_ms * left / 100.0, left))
    return Grid(HEADINGS, rows, HEADINGS[1:])


def _row(operator: str, calls: str, ms: float, share_pct: float) -> dict[str, str]:
    return {"operator": operator, "calls": calls, "ms": f"{ms:.2f}", "share": f"{share_pct:.1f} %"}
