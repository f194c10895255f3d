"""The lines of an export: its files, and how near they come to the checkpoint."""

from __future__ import annotations

from collections.abc import Iterator

from mvit.console import shown
from mvit.rundir.exported import ABOUT, FILES
from mvit.rundir.paths import RunDir
from mvit.rundir.result import ExportResult


def exported_lines(folder: RunDir, result: ExportResult) -> Iterator[tuple[str, str]]:
    for form, name in FILES.items():
        path = folder.exported / name
        if f"export/{form}_max_diff" in result.metrics and path.exists():
            difference = result.metrics[f"export/{form}_max_diff"]
            same = result.metrics[f"export/{form}_same_top1_pct"]
            check = f"logits within {difference:.1e} of the checkpoint's, {same:.2f} % of {result.count} same top-1"
            yield form, f"{shown(path)}, {path.stat().st_size / 1e6:.1f} MB, {check}"
    yield "about", f"{shown(folder.exported / ABOUT)}: preprocessing and class names"
